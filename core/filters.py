r"""Typed filters on a product's attributes: their JSON, their tree and their meaning.

A filter is an object. Each key is an attribute name and each value a condition; all must hold:

    {"color": "red", "price": {"gte": 10, "lt": 50}, "brand": ["a", "b"]}

Conditions: a scalar (equal), a list (any of), or an object of `eq`, `in`, `gt`, `gte`, `lt`, `lte`,
`prefix`, `exists`. The keys `and`, `or` (lists of filters) and `not` (a filter) combine filters. A key that
begins with a backslash is an attribute name: `\and` is the attribute called "and".

A comparison with an attribute that is missing or of another type is false. An attribute that is a list equals a
value when one of its elements does; it has no order and no prefix. Numbers are compared as 64-bit floats, strings
by code point; a bool is not a number. `null` counts as missing.

`parse_filter` reads the JSON, `matches` evaluates it in Python. `milvus/filters.py` and `catalog/filters.py`
compile the same tree to an expression of Milvus and a condition in SQL.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, assert_never, cast

from core.errors import InvalidInput
from core.types import Attributes

Scalar = str | bool | int | float
RangeOperator = Literal["gt", "gte", "lt", "lte"]
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
MAX_DEPTH = 16
MAX_CONDITIONS = 256
MAX_VALUES = 1000
MAX_STRING = 1024
MAX_WHOLE = 2**53
"""Filters compare numbers as floats, which hold whole numbers up to here."""
_OPERATORS = "eq, in, gt, gte, lt, lte, prefix, exists"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The attribute equals one of the values."""

    name: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """The attribute stands in this order to the value."""

    name: str
    operator: RangeOperator
    value: str | int | float


@dataclass(frozen=True, slots=True)
class Exists:
    """The attribute exists."""

    name: str


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; without parts it always does."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Any_:
    """At least one part holds; without parts it never does."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "Filter"


Filter = AnyOf | Compare | Exists | All | Any_ | Not
Kind = Literal["string", "number", "bool"]


def kind_of(value: object) -> tuple[Kind, Any] | None:
    """Return a scalar's kind and comparable form; None for a value that equals nothing.

    A number becomes a float: integers beyond 2**53 lose their last digits, and those beyond the range of a 64-bit
    float equal nothing.
    """
    if isinstance(value, str):
        return "string", value
    if isinstance(value, bool):
        return "bool", value
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    # Zero has one form, since an index may tell -0.0 from it.
    return ("number", number + 0.0) if math.isfinite(number) else None


def matches(filter: Filter, attributes: Attributes) -> bool:
    """Return whether a product with these attributes passes the filter."""
    match filter:
        case AnyOf(name, values):
            found = attributes.get(name)
            elements = found if isinstance(found, list | tuple) else [found]
            return bool({kind_of(each) for each in elements} & {kind_of(each) for each in values} - {None})
        case Compare(name, order, value):
            left, right = kind_of(attributes.get(name)), kind_of(value)
            if left is None or right is None or left[0] != right[0] or left[0] == "bool":
                return False
            return _ORDER[order](left[1], right[1])
        case Exists(name):
            return attributes.get(name) is not None
        case All(parts):
            return all(matches(part, attributes) for part in parts)
        case Any_(parts):
            return any(matches(part, attributes) for part in parts)
        case Not(part):
            return not matches(part, attributes)
        case _:
            assert_never(filter)


def parse_filter(json: object) -> Filter:
    """Read a filter from decoded JSON.

    Raises:
        InvalidInput: a part is no filter; the message and `param` name its path.
    """
    return _Parser().filter(json, "filter", 1)


class _Parser:
    """Counts conditions and values over all parts, so that the compiled expression stays bounded."""

    def __init__(self) -> None:
        self._conditions = 0
        self._values = 0

    def filter(self, json: object, path: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            _refuse(path, f"filters nest at most {MAX_DEPTH} deep")
        if not isinstance(json, dict):
            _refuse(path, "expected an object of attribute names and conditions")
        parts = [self._entry(key, value, f"{path}.{key}", depth) for key, value in json.items()]
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _entry(self, key: object, value: object, path: str, depth: int) -> Filter:
        if not isinstance(key, str):
            _refuse(path, "attribute names are strings")
        if key == "not":
            return Not(self.filter(value, path, depth + 1))
        if key in ("and", "or"):
            if not isinstance(value, list):
                _refuse(path, "expected a list of filters")
            parts = tuple(self.filter(part, f"{path}[{i}]", depth + 1) for i, part in enumerate(value))
            return All(parts) if key == "and" else Any_(parts)
        name = key.removeprefix("\\")
        return self._condition(_checked_string(name, path), value, path)

    def _condition(self, name: str, json: object, path: str) -> Filter:
        if not isinstance(json, dict):
            return self._operator(name, "in" if isinstance(json, list) else "eq", json, path)
        if not json:
            _refuse(path, f"expected at least one of {_OPERATORS}")
        parts = tuple(self._operator(name, key, value, f"{path}.{key}") for key, value in json.items())
        return parts[0] if len(parts) == 1 else All(parts)

    def _operator(self, name: str, key: str, value: object, path: str) -> Filter:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            _refuse(path, f"a filter holds at most {MAX_CONDITIONS} conditions")
        match key:
            case "eq":
                return AnyOf(name, (_scalar(value, path),))
            case "in":
                if not isinstance(value, list):
                    _refuse(path, "expected a list of values")
                self._values += len(value)
                if self._values > MAX_VALUES:
                    _refuse(path, f"a filter holds at most {MAX_VALUES} values in its lists")
                return AnyOf(name, tuple(_scalar(each, f"{path}[{i}]") for i, each in enumerate(value)))
            case "gt" | "gte" | "lt" | "lte":
                limit = _scalar(value, path)
                if isinstance(limit, bool):
                    _refuse(path, "expected a number or a string")
                return Compare(name, key, limit)
            case "prefix":
                if not isinstance(value, str):
                    _refuse(path, "expected a string")
                return _begins_with(name, _checked_string(value, path))
            case "exists":
                if not isinstance(value, bool):
                    _refuse(path, "expected true or false")
                return Exists(name) if value else Not(Exists(name))
        _refuse(path, f"unknown operator; known are {_OPERATORS}")


def _begins_with(name: str, prefix: str) -> Filter:
    """Write a prefix as a range: from itself up to the smallest string above all that begin with it."""
    first, kept = Compare(name, "gte", prefix), prefix.rstrip("\U0010ffff")
    if not kept:
        return first
    following = ord(kept[-1]) + 1
    end = kept[:-1] + chr(0xE000 if following == 0xD800 else following)
    return All((first, Compare(name, "lt", end)))


def _scalar(value: object, path: str) -> Scalar:
    if isinstance(value, str):
        return _checked_string(value, path)
    if kind_of(value) is None:
        _refuse(path, 'expected a string, a finite number or a bool (for missing: {"exists": false})')
    return cast(Scalar, value)


def _checked_string(value: str, path: str) -> str:
    if len(value) > MAX_STRING:
        _refuse(path, f"a string has at most {MAX_STRING} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        _refuse(path, "the string holds a lone surrogate, which is no character")
    return value


def _refuse(path: str, reason: str) -> NoReturn:
    shown = path.encode("utf-8", "replace").decode()[:200]
    raise InvalidInput(f"{shown}: {reason}").at(shown)
