"""Compile a filter to a Milvus boolean expression; the one place that escapes values.

The expressions stay in the subset that Milvus 2.3 and Milvus Lite evaluate alike: every part in
parentheses, no `in` on JSON paths, no `like` (they escape `_` and `%` differently), no constants, and
no `not` around what may be unknown, since Lite has three-valued logic. Negation is pushed down to the
conditions. `milvus/schema.py` says what the paths and the fields of declared attributes hold.
"""

import json
import re
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import assert_never

from core.filters import All, Any_, AnyOf, Compare, Exists, Filter, Kind, Not, Scalar, kind_of
from milvus.schema import MISSING, NAMES, check_field, declared_value, elements_key, single_key

_FIELD = "attributes"
_ALWAYS = '(key != "")'
_NEVER = '(key == "")'
_ORDER = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_OPPOSITE = {"gt": "<=", "gte": "<", "lt": ">=", "lte": ">"}
_UNKNOWN_TO_LITE = re.compile(r"(?<!\\)((?:\\\\)*)\\(u00[0-9a-f]{2}|b|f)")


def compile_filter(
    filter: Filter | None,
    exclude_products: Sequence[str] = (),
    only_products: Sequence[str] | None = None,
    declared: Mapping[str, Kind] | None = None,
) -> str:
    """Write the filter, the products to leave out and those to stay with as one expression.

    It is empty when all rows pass. `declared` attributes have fields of their own in the collection.
    """
    parts = [] if filter is None or filter == All(()) else [_Compiler(declared or {}).write(filter, True)[1]]
    if exclude_products:
        parts.append(f"(product_id not in {literals(exclude_products)})")
    if only_products is not None:
        parts.append(f"(product_id in {literals(only_products)})")
    return " and ".join(parts)


def key_in(keys: Sequence[str]) -> str:
    """Write the expression for rows with these primary keys."""
    return f"key in {literals(keys)}"


def keys_between(first: str, beyond: str | None, *, after: bool = False) -> str:
    """Write the expression for rows with `first <= key < beyond`, or with `first < key`."""
    lower = f"key {'>' if after else '>='} {_literal(first)}"
    return lower if beyond is None else f"{lower} and key < {_literal(beyond)}"


def literals(values: Sequence[Scalar]) -> str:
    """Write a list of literals, without strings that are no text, since no row can hold them."""
    return f"[{', '.join(_literal(value) for value in values if _is_text(value))}]"


class _Compiler:
    """Writes conditions on attributes, by their fields where they are declared and by JSON paths elsewhere."""

    def __init__(self, declared: Mapping[str, Kind]) -> None:
        self._declared = declared

    def write(self, filter: Filter, wanted: bool) -> tuple[int, str]:
        """Write the filter, or what is left out by it; the number says how deep joins are nested."""
        match filter:
            case All(parts) | Any_(parts):
                word = "and" if isinstance(filter, All) == wanted else "or"
                return _in_pairs(word, [self.write(part, wanted) for part in parts])
            case Not(part):
                return self.write(part, not wanted)
            case AnyOf(name) | Compare(name) | Exists(name) if name in self._declared:
                return 0, _of_field(filter, self._declared[name], wanted)
            case AnyOf(name, values):
                by_kind: dict[Kind, list[Scalar]] = {}
                for value in values:
                    if found := kind_of(value):
                        by_kind.setdefault(found[0], []).append(found[1])
                keys = [(elements_key(kind, name), same) for kind, same in by_kind.items()]
                return _in_pairs("or" if wanted else "and", [(0, _contains(*key, wanted)) for key in keys])
            case Compare(name, order, value):
                return 0, _compare(name, order, value, wanted)
            case Exists(name):
                return 0, _contains(NAMES, [name], wanted)
            case _:
                assert_never(filter)


def _of_field(filter: AnyOf | Compare | Exists, kind: Kind, wanted: bool) -> str:
    """Write a condition on a declared attribute; a missing one is below every value of its field."""
    field, missing = check_field(filter.name), _number_or_text(MISSING[kind])
    match filter:
        case AnyOf(_, values):
            stored = [each for value in values if (each := declared_value(kind, value)) is not None]
            same = ", ".join(_number_or_text(each) for each in stored if _is_text(each))
            if not same:
                return _NEVER if wanted else _ALWAYS
            return f"({field} {'in' if wanted else 'not in'} [{same}])"
        case Compare(_, order, value):
            found = kind_of(value)
            if found is None or found[0] != kind or kind == "bool":
                return _NEVER if wanted else _ALWAYS
            limit = f"={found[1]}" if kind == "string" else found[1]
            literal, may_be_missing = _literal(limit), order in ("lt", "lte") or limit == MISSING[kind]
            condition = f"({field} {(_ORDER if wanted else _OPPOSITE)[order]} {literal})"
            if not may_be_missing:
                return condition
            return f"(({field} {'> ' if wanted else '== '}{missing}) {'and' if wanted else 'or'} {condition})"
        case Exists():
            return f"({field} {'>' if wanted else '=='} {missing})"
        case _:
            assert_never(filter)


def _in_pairs(word: str, parts: list[tuple[int, str]]) -> tuple[int, str]:
    """Join parts two by two, the shallowest first.

    A server reads a chain as nested once for each part, and refuses what nests deeper than some 50: it is
    what protobuf takes.
    """
    if not parts:
        return 0, _ALWAYS if word == "and" else _NEVER
    heapify(parts)
    while len(parts) > 1:
        (_, first), (depth, second) = heappop(parts), heappop(parts)
        heappush(parts, (depth + 1, f"({first} {word} {second})"))
    return parts[0]


def _contains(key: str, values: Sequence[Scalar], wanted: bool) -> str:
    found = f"json_contains_any({_path(key)}, {literals(values)})"
    return f"({found})" if wanted else f"(not ({found}))"


def _compare(name: str, order: str, value: str | int | float, wanted: bool) -> str:
    found = kind_of(value)
    if found is None or found[0] == "bool":
        return _NEVER if wanted else _ALWAYS
    path, literal = _path(single_key(found[0], name)), _literal(found[1])
    if wanted:
        return f"({path} {_ORDER[order]} {literal})"
    return f"((not (exists {path})) or ({path} {_OPPOSITE[order]} {literal}))"


def _path(key: str) -> str:
    return f"{_FIELD}[{_literal(key)}]"


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _UNKNOWN_TO_LITE.sub(_unescape, json.dumps(value, ensure_ascii=False))
    return repr(float(value))


def _number_or_text(value: str | float | int) -> str:
    """Write a value of a declared attribute's field, where a bool is an integer."""
    return str(value) if isinstance(value, int) else _literal(value)


def _is_text(value: Scalar) -> bool:
    return not isinstance(value, str) or not any("\ud800" <= each <= "\udfff" for each in value)


def _unescape(match: re.Match[str]) -> str:
    """Put the control character itself: Lite's tokenizer knows no escape for it."""
    return match[1] + str(json.loads(f'"\\{match[2]}"'))
