"""Filters in Milvus: their boolean expressions, and how wide a search in an HNSW index goes under them.

This is the one place that escapes values.

The expressions stay in the subset that Milvus 2.3 and Milvus Lite evaluate alike: every part in
parentheses, no `in` on JSON paths, no `like` (they escape `_` and `%` differently), no constants, and
no `not` around what may be unknown, since Lite has three-valued logic. Negation is pushed down to the
conditions. `milvus/schema.py` says what the paths and the fields of declared attributes hold.

HNSW loses neighbors under a filter, because most nodes of the graph do not count. Where a filter passes at most
7 % of a segment's rows, Milvus compares all of these by itself, which is exact and fast (Knowhere's
`kHnswBruteForceFilterRate`). Just above that, no width is enough: where 7.2 % of a million rows passed, `ef` 1,800
found 98.7 % of the true neighbors. There, two searches, each of one half of the rows, are exact. From 8 % on, a
wider search finds 99 %, in less time.
"""

import json
import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from threading import Condition
from typing import Any, assert_never

from cachetools import TTLCache, cachedmethod

from core.errors import VitrineError
from core.filters import All, Any_, AnyOf, Compare, Exists, Filter, Kind, Not, Scalar, kind_of
from milvus.config import IndexConfig
from milvus.schema import MISSING, NAMES, check_field, declared_value, elements_key, single_key

_FIELD = "attributes"
_ALWAYS = '(key != "")'
_NEVER = '(key == "")'
_ORDER = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_OPPOSITE = {"gt": "<=", "gte": "<", "lt": ">=", "lte": ">"}
_FRESH_S = 30.0
_MOST_KEPT = 1000
_COUNT_S = 1.0
_EXACT_SHARE = 0.06
"""Below the 7 % by enough that segments may differ."""
_HALVED_SHARE = 0.08
_WIDTH = 130
"""ef times the share that passes, from which on recall is 0.99: measured where 8 to 20 % of a million rows passed."""
_UNKNOWN_TO_LITE = re.compile(r"(?<!\\)((?:\\\\)*)\\(u00[0-9a-f]{2}|b|f)")

logger = logging.getLogger(__name__)


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


class Shares:
    """Shares of rows that pass a filter, by collection and expression. Thread-safe.

    `count` counts the rows of a collection that pass an expression, within some seconds.
    """

    def __init__(self, count: Callable[[str, str, float], int]) -> None:
        self._count = count
        self._kept: TTLCache[Any, float] = TTLCache(_MOST_KEPT, _FRESH_S)
        # Searches that need a share which another one counts wait for that.
        self._counted = Condition()

    def of(self, collection: str, expression: str) -> float:
        """Return the share, at most 30 s old; 1 without an expression.

        A count that fails or takes more than a second is no reason to fail the search, which then goes as wide as
        under a filter that few rows pass.
        """
        return self._measure(collection, expression) if expression else 1.0

    @cachedmethod(lambda self: self._kept, condition=lambda self: self._counted)
    def _measure(self, collection: str, expression: str) -> float:
        until = time.monotonic() + _COUNT_S
        try:
            rows = self._count(collection, "", _COUNT_S)
            return self._count(collection, expression, until - time.monotonic()) / max(1, rows)
        except VitrineError as error:
            logger.warning("the rows that a filter passes were not counted in %s: %s", collection, error)
            return _EXACT_SHARE


def halves(expression: str, share: float) -> list[str]:
    """Split an expression that passes a little too much to be searched exactly; any other stays as it is.

    The collection has the field `part`.
    """
    if _EXACT_SHARE < share <= _HALVED_SHARE:
        return [f"({expression}) and (part == {part})" for part in (0, 1)]
    return [expression]


def width(share: float, count: int, index: IndexConfig) -> int:
    """Return the ef of a search for `count` rows under a filter that this share of the rows passes."""
    twice = 2 * count if 2 * count <= index.max_ef else count
    return max(index.min_ef, twice, min(math.ceil(_WIDTH / max(share, _EXACT_SHARE)), index.max_ef))
