"""From the JSON of a filter to its tree, with errors that name the wrong part."""

from typing import NoReturn, cast

from core.errors import InvalidInput
from core.filters.meaning import kind_of
from core.filters.tree import All, Any_, AnyOf, Compare, Exists, Filter, Not, Prefix, RangeOperator, Scalar

MAX_DEPTH = 16
MAX_CONDITIONS = 256
MAX_VALUES = 1000
MAX_STRING = 1024
_OPERATORS = "eq, in, gt, gte, lt, lte, prefix, exists"


def parse_filter(json: object) -> Filter:
    """Read a filter from decoded JSON.

    Raises:
        InvalidInput: something is not a filter; the message and `param` name the path of that part.
    """
    return _Parser().filter(json, "filter", 1)


class _Parser:
    """Counts conditions and values over the whole filter, so that its expression stays bounded."""

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
        if isinstance(json, list):
            return self._any_of(name, json, path)
        if not isinstance(json, dict):
            return self._any_of(name, [json], path, element=path)
        if not json:
            _refuse(path, f"expected at least one of {_OPERATORS}")
        parts = tuple(self._operator(name, key, value, f"{path}.{key}") for key, value in json.items())
        return parts[0] if len(parts) == 1 else All(parts)

    def _operator(self, name: str, key: str, value: object, path: str) -> Filter:
        match key:
            case "eq":
                return self._any_of(name, [value], path, element=path)
            case "in":
                return self._any_of(name, value, path)
            case "gt" | "gte" | "lt" | "lte":
                return self._compare(name, key, value, path)
            case "prefix":
                self._count(path)
                if not isinstance(value, str):
                    _refuse(path, "expected a string")
                return Prefix(name, _checked_string(value, path))
            case "exists":
                self._count(path)
                if not isinstance(value, bool):
                    _refuse(path, "expected true or false")
                return Exists(name, value)
        _refuse(path, f"unknown operator; known are {_OPERATORS}")

    def _any_of(self, name: str, json: object, path: str, element: str | None = None) -> Filter:
        self._count(path)
        if not isinstance(json, list):
            _refuse(path, "expected a list of values")
        self._values += len(json)
        if self._values > MAX_VALUES:
            _refuse(path, f"a filter holds at most {MAX_VALUES} values")
        return AnyOf(name, tuple(_scalar(v, element or f"{path}[{i}]") for i, v in enumerate(json)))

    def _compare(self, name: str, order: RangeOperator, value: object, path: str) -> Filter:
        self._count(path)
        scalar = _scalar(value, path)
        if isinstance(scalar, bool):
            _refuse(path, "expected a number or a string")
        return Compare(name, order, scalar)

    def _count(self, path: str) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            _refuse(path, f"a filter holds at most {MAX_CONDITIONS} conditions")


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
