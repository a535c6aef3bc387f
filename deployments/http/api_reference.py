"""Write the generated parts of docs/api.md: `python -m deployments.http.api_reference docs/api.md`."""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.jobs import KINDS
from deployments.http.app import describe
from deployments.http.openapi import Document, RequestExample, examples, kinds, operations

BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(\n<!-- end -->)", re.DOTALL)


def fill(page: str, document: Document) -> str:
    """Write every generated block of a page anew; KeyError when it has one that is not known."""
    written = blocks(document)
    return BLOCK.sub(lambda block: block[1] + written[block[2]] + block[3], page)


def blocks(document: Document) -> dict[str, str]:
    """Write the blocks: `calls`, `errors`, `jobs-kinds`, and one for each group of calls."""
    groups: dict[str, list[str]] = defaultdict(list)
    rows = []
    for method, path, operation in operations(document):
        anchor = re.sub(r"[^a-z0-9_ -]", "", f"{method} {path}".lower()).replace(" ", "-")
        rows.append(f"| [`{method} {path}`](#{anchor}) | {operation['summary']} | {_scope(operation)} |")
        groups[operation["tags"][0]].append(_section(method, path, operation))
    failures = [f"| `{kind}` | {status} | {when} |" for kind, status, when in kinds()]
    return {
        "calls": _table("call", "what", "scope", rows),
        "errors": _table("type", "status", "when", failures),
        "job-kinds": _table("kind", "what", "args", [_kind(name) for name in KINDS]),
        **{group: "\n\n".join(sections) for group, sections in groups.items()},
    }


def _table(first: str, second: str, third: str, rows: list[str]) -> str:
    return "\n".join([f"| {first} | {second} | {third} |", "| --- | --- | --- |", *rows])


def _kind(name: str) -> str:
    args = KINDS[name]
    fields = ", ".join(
        f"**{field}**" if info.is_required() else field for field, info in args.model_fields.items()
    )
    return f"| `{name}` | {(args.__doc__ or '').partition('.')[0]}. | {fields} |"


def _scope(operation: Document) -> str:
    scopes = [scope for each in operation.get("security", []) for scope in each.get("ApiKey", [])]
    return scopes[-1] if scopes else "none"


def _section(method: str, path: str, operation: Document) -> str:
    if operation["operationId"] not in examples():
        raise ConfigError(f"{method} {path} has no example; write one in deployments/http/examples/")
    call = examples()[operation["operationId"]]
    first = call.requests[0]
    parts: list[str] = [f"### {method} {path}", str(operation.get("description", operation["summary"]))]
    parts += _parameters(operation)
    parts.append(f"```sh\n{_curl(method, path, first)}\n```")
    if call.answer is not None:
        parts.append(_answer(call.answer))
    errors = ", ".join(status for status in operation["responses"] if status >= "400")
    answers = ", ".join(status for status in operation["responses"] if status < "400")
    parts.append(f"Answers {answers}; errors {errors}.")
    return "\n\n".join(parts)


def _parameters(operation: Document) -> list[str]:
    rows = [
        f"- `{each['name']}` ({_bounds(each['schema'])}) {each.get('description', '')}".rstrip()
        for each in operation.get("parameters", [])
        if each["in"] == "query"
    ]
    return ["\n".join(rows)] if rows else []


def _bounds(schema: Document) -> str:
    names = {"minimum": "from", "maximum": "to", "default": "default"}
    kind = schema.get("type") or schema["anyOf"][0]["type"]
    return ", ".join(
        [str(kind), *(f"{word} {schema[name]}" for name, word in names.items() if name in schema)]
    )


def _curl(method: str, path: str, request: RequestExample) -> str:
    query = "&".join(f"{name}={value}" for name, value in request.query.items())
    url = f"localhost:8000{path.format(**request.path)}" + (f"?{query}" if query else "")
    implied = "GET" if request.form is None and request.json_body is None else "POST"
    lines = [f"curl -s {'' if method == implied else f'-X {method} '}{_quoted(url) if query else url}"]
    if request.json_body is not None:
        lines.append("-H 'content-type: application/json'")
        lines.append(f"-d {_quoted(json.dumps(request.json_body, ensure_ascii=False))}")
    for name, value in (request.form or {}).items():
        for each in value if isinstance(value, list) else [value]:
            text = each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)
            lines.append(f"-F {_quoted(f'{name}={text}')}")
    return " \\\n  ".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _answer(answer: Any) -> str:
    if isinstance(answer, str):
        return f"```\n{answer.rstrip()}\n```"
    return f"```json\n{json.dumps(answer, indent=1, ensure_ascii=False)}\n```"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(fill(page.read_text(), describe()))
