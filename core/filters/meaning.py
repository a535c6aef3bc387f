"""What a filter means, in Python: the reference that every engine has to agree with."""

import math
import operator
from collections.abc import Callable
from typing import Any, Literal, assert_never

from core.filters.tree import All, Any_, AnyOf, Compare, Exists, Filter, Not, Prefix
from core.types import Attributes

Kind = Literal["string", "number", "bool"]

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def kind_of(value: object) -> tuple[Kind, Any] | None:
    """Tell a scalar's kind and its comparable form; None for what no condition can equal.

    A number becomes a float: integers beyond 2**53 lose their last digits, those beyond the range of a
    64-bit float are comparable with nothing.
    """
    if isinstance(value, str):
        return "string", value
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        return ("number", number) if math.isfinite(number) else None
    return None


def matches(filter: Filter, attributes: Attributes) -> bool:
    """Say whether a product with these attributes passes the filter."""
    match filter:
        case AnyOf(name, values):
            wanted = [kind_of(value) for value in values]
            return any(found in wanted for found in _elements(attributes.get(name)) if found is not None)
        case Compare(name, order, value):
            return _ordered(attributes.get(name), order, value)
        case Prefix(name, prefix):
            found = attributes.get(name)
            return isinstance(found, str) and found.startswith(prefix)
        case Exists(name, wanted_there):
            return (attributes.get(name) is not None) == wanted_there
        case All(parts):
            return all(matches(part, attributes) for part in parts)
        case Any_(parts):
            return any(matches(part, attributes) for part in parts)
        case Not(part):
            return not matches(part, attributes)
        case _:
            assert_never(filter)


def _elements(value: object) -> list[tuple[Kind, Any] | None]:
    return [kind_of(element) for element in value] if isinstance(value, list | tuple) else [kind_of(value)]


def _ordered(found: object, order: str, value: object) -> bool:
    left, right = kind_of(found), kind_of(value)
    if left is None or right is None or left[0] != right[0] or left[0] == "bool":
        return False
    return _ORDER[order](left[1], right[1])
