"""Names that a version promises to keep: settings, metrics, calls and commands, read from the generated documents."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("docs/openapi.json", "docs/operations.md", "docs/cli.md")


def interface(folder: Path = ROOT) -> set[str]:
    """List the names below a checkout: the kind, the name, and what it belongs to or has as its default."""
    api, operations, commands = ((folder / name).read_text() for name in DOCUMENTS)
    return {*_calls(api), *_settings(operations), *_metrics(operations), *_commands(commands)}


def unnamed(before: set[str], now: set[str], changelog: str) -> list[str]:
    """List what came, went or has another default, and is not named in the changelog, as code."""
    named = "\n".join(re.findall(r"`([^`\n]+)`", changelog))
    owners = {_owner(each) for each in before} & {_owner(each) for each in now}
    changed = [each for each in before ^ now if _owner(each) in owners]
    return sorted(each for each in changed if not re.search(_as_a_word(_name(each)), named))


def _name(line: str) -> str:
    """Return how the changelog is to name it: a setting without what it is in, a call with its method."""
    name = line.partition(" of ")[0].partition(" ")[2]
    return name if " /" in name or name.startswith("vitrine ") else name.rpartition(".")[2]


def _owner(line: str) -> str:
    """Return what it is a part of, if of anything; what comes or goes as a whole needs no names of its parts."""
    return line.partition(" of ")[2].partition(" = ")[0]


def _as_a_word(name: str) -> str:
    return rf"(?<![\w/-]){re.escape(name)}(?![\w/-])"


def _calls(text: str) -> Iterator[str]:
    document = json.loads(text)
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            name = f"{method.upper()} {path}"
            yield f"call {name}"
            yield from (f"parameter {each['name']} of {name}" for each in call.get("parameters", ()))
    for schema, each in document["components"]["schemas"].items():
        yield from (f"field {name} of {schema}" for name in each.get("properties", ()))


def _settings(text: str) -> Iterator[str]:
    table = text.partition("<!-- settings:")[2].partition("<!-- end of the settings")[0]
    owner = ""
    for line in table.splitlines():
        if line.startswith("#"):
            owner = re.findall(r"`([^`]+)`", line)[-1]
        elif line.startswith("| `"):
            name, _, default, *_ = (each.strip() for each in line.strip("|").split(" | "))
            yield f"setting {name.strip('`')} of {owner} = {default}"


def _metrics(text: str) -> Iterator[str]:
    for name, labels in re.findall(r"(?m)^\| `(ray_\w+)` \| \w+ \| (.*?) \|", text):
        yield f"metric {name}"
        yield from (f"label {label} of {name}" for label in re.findall(r"`(\w+)`", labels))


def _commands(text: str) -> Iterator[str]:
    for section in re.split(r"(?m)^#+ (?=`vitrine )", text)[1:]:
        command = section.split("`")[1]
        yield f"command {command}"
        yield from (f"option {each} of {command}" for each in re.findall(r"(?m)^\* `.*?(--[\w-]+)", section))
