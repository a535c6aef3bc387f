"""Lay out the pages of the documentation as mkdocs reads them: `python docs/make_site.py FOLDER`.

Pages and what they link to keep their paths, so a link leads to the same place in the repository and in the site.
Three things differ from the repository:

- `docs/reference.md` is made of `docs/openapi.json`.
- Lists are indented by four spaces, as Markdown's first implementation asks for; GitHub takes two or three.
- Diagrams are drawn by a file of the site, which npm installs. Without that file they stay text.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]
DIAGRAMS = ROOT / "node_modules" / "@mermaid-js" / "tiny" / "dist" / "mermaid.tiny.js"
FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(<?([^)\s>#]+)[^)\s>]*>?\)")
_BLOCK = re.compile(r"[-*] |\d+\. |\|")
_CONTINUES = re.compile(_BLOCK.pattern + r"| {2}\S|$")
_REF = "#/components/schemas/"


def lay_out(target: Path) -> None:
    """Write all pages, and the files that they link to, into an empty folder."""
    for page in pages():
        text = page.read_text()
        _write(target / page.relative_to(ROOT), as_mkdocs_reads(text))
        for link in LINK.findall(FENCE.sub("", text)):
            file = (page.parent / unquote(link)).resolve()
            if file.is_file() and file.is_relative_to(ROOT) and file.suffix != ".md":
                _copy(file, target / file.relative_to(ROOT))
    _write(target / "docs" / "reference.md", "\n".join(reference(_openapi())))
    _copy(ROOT / "docs" / "openapi.json", target / "docs" / "openapi.json")
    if DIAGRAMS.exists():
        _copy(DIAGRAMS, target / "assets" / "mermaid.js")


def pages() -> list[Path]:
    """List the pages of the repository; mkdocs refuses those that `mkdocs.yml` does not name."""
    found = [each for depth in ("", "*/", "*/*/") for each in ROOT.glob(f"{depth}*.md")]
    left_out = re.compile(r"(^|/)(\.|node_modules/)")
    return [each for each in sorted(found) if not left_out.search(str(each.relative_to(ROOT)))]


def as_mkdocs_reads(text: str) -> str:
    """Rewrite what mkdocs reads in another way than GitHub."""
    if not DIAGRAMS.exists():
        text = text.replace("```mermaid\n", "```text\n")
    parts, at = [], 0
    for fence in FENCE.finditer(text):
        # What is in a fence stays as it is, and moves with the item of a list that it belongs to.
        code = _indented(fence[0]) if fence[1] else fence[0]
        parts += [_apart(_indented(text[at : fence.start()])), code, "\n"]
        at = fence.end()
    return "".join([*parts, _apart(_indented(text[at:]))])


def _indented(text: str) -> str:
    return re.sub(r"(?m)^ {3}", "    ", text)


def _apart(text: str) -> str:
    """Put an empty line before a list or a table, and before an item behind what belongs to the one before it."""
    lines: list[str] = []
    for line in text.split("\n"):
        if lines and _BLOCK.match(line) and not _CONTINUES.match(lines[-1]):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _openapi() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
    return found


def reference(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page that lists every call and every schema of an OpenAPI document."""
    yield f"# API reference\n\nEvery call of version {document['info']['version']}, with its fields. "
    yield "[The HTTP API](api.md) explains them. The same as an [OpenAPI document](openapi.json)."
    group = ""
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            if call["tags"][0] != group:
                group = call["tags"][0]
                yield f"\n## {group.capitalize()}"
            yield from _call(f"{method.upper()} {path}", call)
    yield "\n## Schemas"
    for name, schema in document["components"]["schemas"].items():
        yield f"\n### {name}\n\n{schema.get('description', '')}\n"
        yield from _fields(schema)


def _call(title: str, call: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n### {title}\n\n{call['summary']}.\n\n{call.get('description', '')}\n"
    scopes = [scope for each in call.get("security", ()) for scope in each.get("ApiKey", ())]
    yield f"Scope: {scopes[-1] if scopes else 'none'}.\n"
    parameters = call.get("parameters", ())
    if parameters:
        rows = (
            (
                f"`{each['name']}`",
                each["in"],
                _kind(each["schema"]),
                _default(each),
                each.get("description", ""),
            )
            for each in parameters
        )
        yield from _table(("parameter", "in", "type", "default", "about"), rows)
    for kind, content in call.get("requestBody", {}).get("content", {}).items():
        yield f"**Request body** as `{kind}`: {_kind(content['schema'])}\n"
        if "$ref" not in content["schema"]:
            yield from _fields(content["schema"])
        yield from _examples(content)
    answers = []
    for status, answer in call["responses"].items():
        kinds = ", ".join(
            _kind(each["schema"]) for each in answer.get("content", {}).values() if "schema" in each
        )
        answers.append((status, kinds, answer["description"]))
    yield from _table(("status", "body", "about"), answers)
    for status, answer in call["responses"].items():
        for content in answer.get("content", {}).values():
            if status < "300":
                yield from _examples(content)


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    if "properties" not in schema:
        yield f"{_kind(schema)}\n"
        return
    needed = schema.get("required", ())
    rows = (
        (
            f"**`{name}`**" if name in needed else f"`{name}`",
            _kind(field),
            _default({"schema": field}),
            field.get("description", ""),
        )
        for name, field in schema["properties"].items()
    )
    yield from _table(("field, required ones bold", "type", "default", "about"), rows)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = [*heads]
    yield f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(' '.join(cell.replace('|', '&#124;').split()) for cell in row)} |"
    yield ""


def _examples(content: Mapping[str, Any]) -> Iterator[str]:
    values = [each["value"] for each in content.get("examples", {}).values()]
    for value in [*values, *([content["example"]] if "example" in content else [])]:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        yield f"```{'text' if isinstance(value, str) else 'json'}\n{text}\n```\n"


def _default(of: Mapping[str, Any]) -> str:
    given = of["schema"].get("default")
    return "" if given is None else f"`{json.dumps(given, ensure_ascii=False)}`"


def _kind(schema: Mapping[str, Any]) -> str:
    """Name the type of a value, with links to schemas."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_kind(each) for each in schema[several]))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "any")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    lay_out(folder)
