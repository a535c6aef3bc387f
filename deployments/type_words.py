"""The type of a setting, and what it may be, in words."""

import enum
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    dict: "map",
    Any: "anything",
}
_BOUNDS = {"gt": "more than {}", "ge": "at least {}", "lt": "less than {}", "le": "at most {}"}
_LENGTHS = {"min_length": "no shorter than {}", "max_length": "no longer than {}", "pattern": "matching `{}`"}


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the settings that a type holds, alone or as one of several types."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = typing.get_args(annotation)
        return next((model for part in parts if (model := model_in(part))), None)
    return None


def type_in_words(annotation: Any) -> str:
    """Name a type as one who writes YAML would."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is typing.Annotated:
        return type_in_words(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join("nothing" if part is types.NoneType else type_in_words(part) for part in parts)
    if origin in (tuple, list):
        return f"list of {type_in_words(parts[0])}" if parts else "list"
    if origin is dict and parts:
        return f"map of {type_in_words(parts[0])} to {type_in_words(parts[1])}"
    if model_in(annotation) is not None:
        return "settings, below"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    return _NAMES.get(origin or annotation) or str(getattr(annotation, "__name__", annotation))


def bounds_in_words(field: FieldInfo) -> Iterator[str]:
    """Say what limits a value has beyond its type."""
    for constraint in field.metadata:
        for name, words in (_BOUNDS | _LENGTHS).items():
            bound = getattr(constraint, name, None)
            if bound is not None:
                yield words.format(bound)
