"""Options that hold JSON."""

import json
from typing import Any

import typer


def json_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Read an option that holds a JSON object; None when it is left out.

    Raises:
        typer.BadParameter: it is none.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter('give a JSON object such as {"colour": "red"}', param_hint=option)
    return value
