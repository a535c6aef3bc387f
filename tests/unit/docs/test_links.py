"""No page of the documentation links to a file or a heading that does not exist."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("*/*/*.md")]
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
    assert {path for path in PAGES if path.parent == ROOT / "docs"} <= reached


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
