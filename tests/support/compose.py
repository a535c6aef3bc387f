"""compose.yaml as Compose reads it: merged with an override, and with variables in their places."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ENVIRONMENT = "compose/env.example"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[?-])(?P<other>[^}]*))?\}|\$\$")


def example() -> dict[str, str]:
    """The variables of the example of an env file."""
    lines = (ROOT / ENVIRONMENT).read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def compose(variables: Mapping[str, str], *overrides: str) -> dict[str, Any]:
    """Read compose.yaml, merged with overrides; a missing variable that is required is a KeyError."""
    merged: dict[str, Any] = {}
    for name in ("compose.yaml", *overrides):
        merged = _merged(merged, _interpolated(yaml.safe_load((ROOT / name).read_text()), variables))
    return merged


def variables(*overrides: str) -> set[str]:
    """Name the variables that the files refer to."""
    texts = ((ROOT / name).read_text() for name in ("compose.yaml", *overrides))
    return {found["name"] for text in texts for found in _VARIABLE.finditer(text) if found["name"]}


def _interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolated(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [_interpolated(each, variables) for each in value]
    if not isinstance(value, str):
        return value

    def replaced(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        given = variables.get(found["name"], "")
        if not given and found["kind"] == "?":
            raise KeyError(found["name"])
        return given or (found["other"] or "" if found["kind"] == "-" else "")

    return _VARIABLE.sub(replaced, value)


def _merged(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: _merged(below.get(key), value) for key, value in above.items()}
    return above
