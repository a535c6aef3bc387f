"""Pages of the documentation link to what exists, and paragraphs, also of docstrings, are short."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("*/*/*.md")]
    if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")


def prose(page: Path) -> str:
    """The text without its code blocks and code spans, where brackets mean something else."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(`+)(?!`).*?\1(?!`)", lambda span: "" if "](" in span.group() else span.group(), text)


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings: in lower case, hyphens for spaces, a number behind what repeats."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(page), flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken(page: Path) -> Iterator[str]:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / unquote(name)).resolve() if name else page
        if not target.exists() or not target.is_relative_to(ROOT):
            yield f"{link}: there is no such file"
        elif anchor and anchor not in anchors(target):
            yield f"{link}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(broken(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_of_the_repository_that_is_named_is_there(page: Path) -> None:
    named = re.findall(
        r"`([a-z0-9_]+/[\w./-]*)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    )
    ours = [path for path in named if (ROOT / path.partition("/")[0]).is_dir()]
    assert [path for path in ours if not (ROOT / path).exists() and not (page.parent / path).exists()] == []


def test_the_pages_are_all_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            links = (link.partition("#")[0] for link in LINK.findall(prose(page)))
            ahead += [
                path
                for link in links
                if (path := (page.parent / link).resolve()).suffix == ".md" and path.is_file()
            ]
    ours = (ROOT, ROOT / "docs", ROOT / "docs" / "adr")
    assert {path for path in PAGES if path.parent in ours} <= reached


def test_a_link_to_a_heading_or_file_that_is_not_there_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# The `API`: a {key}\n## Twice\n## Twice\n[a](#the-api-a-key) [b](#twice-1) [c](page.md#twice) `[d](none)`\n"
        "```sh\n[e](none)\n```\n[f](https://example.com/none) [g](#twice-2) [h](none.md)\n"
    )
    assert list(broken(page)) == ["#twice-2: there is no such heading", "none.md: there is no such file"]


ROOT = Path(__file__).parents[3]
LONGEST = 600
READMES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "demo/weights/README.md",
    "k8s/crds/README.md",
)
PROSE_PAGES = [
    *(ROOT / name for name in READMES),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/adr/*.md")),
]
LAYERS = ("core", "models", "catalog", "milvus", "deployments", "jobs", "vitrine")

GENERATED = re.compile(r"^<!-- [^\n]*generated.*?^<!-- end[^\n]*-->$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
TABLE_ROW = re.compile(r"^ *\|.*\|$", re.MULTILINE)
BETWEEN = re.compile(r"\n\s*\n|^#+ .*$|\n(?= *(?:[-*]|\d+\.) )", re.MULTILINE)
"""An empty line, a heading, or the beginning of an item of a list."""


def paragraphs(text: str) -> Iterator[str]:
    yield from (joined for part in BETWEEN.split(text) if (joined := " ".join(part.split())))


def without_code(page: str) -> str:
    for left_out in (GENERATED, CODE, TABLE_ROW):
        page = left_out.sub("", page)
    return page


def docstrings(module: Path) -> Iterator[str]:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, documented):
            yield ast.get_docstring(node) or ""


def too_long(text: str) -> list[str]:
    return [f"{len(each)}: {each[:80]}…" for each in paragraphs(text) if len(each) > LONGEST]


@pytest.mark.parametrize("page", PROSE_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_paragraph_of_a_page_is_long(page: Path) -> None:
    assert too_long(without_code(page.read_text())) == []


@pytest.mark.parametrize("layer", LAYERS)
def test_no_paragraph_of_a_docstring_is_long(layer: str) -> None:
    modules = sorted((ROOT / layer).rglob("*.py"))
    found = {
        str(module.relative_to(ROOT)): long
        for module in modules
        if (long := [each for docstring in docstrings(module) for each in too_long(docstring)])
    }
    assert modules
    assert found == {}


def test_only_prose_counts_and_items_of_a_list_are_paragraphs_of_their_own() -> None:
    half = "a word " * 50
    code = f"```sh\n{half}\n{half}\n```\n"
    table = f"| {half} | {half} |\n"
    generated = (
        f"<!-- settings: generated by `make generate` -->\n{half}\n{half}\n<!-- end of the settings -->\n"
    )
    short = f"# {half}\n{half}\n\n{half}\n- {half}\n1. {half}\n\n{code}{table}{generated}"
    assert too_long(without_code(short)) == []
    assert too_long(without_code(f"- {half}\n  {half}\n")) == [f"701: - {half[:78]}…"]
