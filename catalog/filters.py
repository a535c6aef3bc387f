"""Compilation of filters to SQL conditions on the attributes of products; only this module reads JSON in SQL.

The condition agrees with `core.filters.matches` on all attributes that `catalog.product_rows` accepts. These hold
no NUL and no number beyond 64 bits. A filter may hold both, so they are handled here and never reach a database.
The condition is never NULL, so NOT inverts it.

Each JSON value is read by its kind: a string by code point, a number as a 64-bit float, a bool. Read as another
kind it is NULL, which equals nothing. Callers' values are bound parameters. The rest is SQL text: as SQLAlchemy
expressions, the largest filters took seconds and tens of megabytes to build.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, assert_never

from sqlalchemy import TextClause, text

from core.filters import All, Any_, AnyOf, Compare, Exists, Filter, Kind, Not, Scalar, kind_of

_Form = Kind | Literal["exists"]
_Condition = str | bool
"""SQL, or a constant that needs no database."""
_Test = Callable[[Mapping[_Form, str]], str]
"""Writes a condition on a JSON value, which it gets as SQL by kind."""

_PARAMETER = re.compile(r":(filter_\d+)")
_ATTRIBUTES = "products.attributes"
_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_BEFORE_NUL = {"gt": "gt", "gte": "gt", "lt": "lte", "lte": "lte"}


def compile_filter(filter: Filter, dialect: str) -> TextClause:
    """Compile the filter to a condition on rows of `products`."""
    compiler = _Compiler(_find_in_postgresql if dialect == "postgresql" else _find_in_sqlite)
    condition = compiler.compile(filter)
    if isinstance(condition, bool):
        condition = "1 = 1" if condition else "1 = 0"
    # Conditions that were dropped have left values.
    named = set(_PARAMETER.findall(condition))
    values = {name: value for name, value in compiler.values.items() if name in named}
    return text(f"({condition})").bindparams(**values)


class _Compiler:
    """Collects the values of parameters; `find` writes that an attribute exists and passes a test."""

    def __init__(self, find: Callable[[str, _Test, bool], str]) -> None:
        self.values: dict[str, Scalar] = {}
        self._find = find

    def compile(self, filter: Filter) -> _Condition:
        match filter:
            case All(parts):
                return self._joined(parts, False)
            case Any_(parts):
                return self._joined(parts, True)
            case Not(part):
                condition = self.compile(part)
                return not condition if isinstance(condition, bool) else f"NOT {condition}"
            case Exists(name):
                return self._holds(name, lambda forms: forms["exists"])
            case AnyOf(name, values):
                return self._holds(name, self._equals_one_of(values), elements=True)
            case Compare(name, order, value):
                return self._holds(name, self._is_ordered(order, value))
            case _:
                assert_never(filter)

    def _joined(self, parts: Sequence[Filter], decisive: bool) -> _Condition:
        """Join by OR where a true condition decides, by AND where a false one does."""
        conditions = [self.compile(part) for part in parts]
        if any(each is decisive for each in conditions):
            return decisive
        # Both databases limit the length of a chain, and a filter may hold any number of empty conditions.
        unknown = [each for each in conditions if not isinstance(each, bool)]
        if not unknown:
            return not decisive
        return f"({(' OR ' if decisive else ' AND ').join(unknown)})"

    def _holds(self, name: str, test: _Test | None, elements: bool = False) -> _Condition:
        if test is None or not _is_storable(name):
            return False
        return self._find(self._bound(name), test, elements)

    def _equals_one_of(self, values: Sequence[Scalar]) -> _Test | None:
        wanted: dict[Kind, list[str]] = {}
        for value in values:
            found = kind_of(value)
            if found is not None and (found[0] != "string" or _is_storable(found[1])):
                wanted.setdefault(found[0], []).append(self._bound(found[1]))
        if not wanted:
            return None
        return lambda forms: " OR ".join(
            f"{forms[kind]} IN ({', '.join(some)})" for kind, some in wanted.items()
        )

    def _is_ordered(self, order: str, value: Scalar) -> _Test | None:
        found = kind_of(value)
        if found is None or found[0] == "bool":
            return None
        kind, limit = found
        if kind == "string" and not _is_storable(limit):
            # The strings before "a\0b" are those up to "a", since none holds a NUL.
            order, limit = _BEFORE_NUL[order], limit.partition("\0")[0]
        bound = self._bound(limit)
        return lambda forms: f"{forms[kind]} {_OPERATORS[order]} {bound}"

    def _bound(self, value: Scalar) -> str:
        name = f"filter_{len(self.values)}"
        self.values[name] = value
        return f":{name}"


def _is_storable(value: str) -> bool:
    return "\0" not in value


def _find_in_sqlite(name: str, test: _Test, elements: bool) -> str:
    found = test(_sqlite_forms("attribute"))
    if elements:
        array = "CASE attribute.type WHEN 'array' THEN attribute.value ELSE '[]' END"
        element = test(_sqlite_forms("element"))
        found += f" OR EXISTS (SELECT 1 FROM json_each({array}) AS element WHERE {element})"
    # By the keys of json_each, not by a path: versions of SQLite quote odd names in paths differently.
    return (
        f"EXISTS (SELECT 1 FROM json_each({_ATTRIBUTES}) AS attribute "
        f"WHERE attribute.key = {name} AND ({found}))"
    )


def _sqlite_forms(row: str) -> Mapping[_Form, str]:
    return {
        "string": f"CASE {row}.type WHEN 'text' THEN {row}.value END",
        "number": f"CASE WHEN {row}.type IN ('integer', 'real') THEN CAST({row}.value AS REAL) END",
        "bool": f"CASE {row}.type WHEN 'true' THEN 1 WHEN 'false' THEN 0 END",
        "exists": f"{row}.type <> 'null'",
    }


def _find_in_postgresql(name: str, test: _Test, elements: bool) -> str:
    rows, row = f"json_extract_path({_ATTRIBUTES}, {name}) AS attribute(value)", "attribute"
    if elements:
        array = (
            "CASE json_typeof(attribute.value) WHEN 'array' THEN attribute.value "
            "ELSE json_build_array(attribute.value) END"
        )
        rows, row = f"{rows}, json_array_elements({array}) AS element(value)", "element"
    return f"EXISTS (SELECT 1 FROM {rows} WHERE {test(_postgresql_forms(row))})"


def _postgresql_forms(row: str) -> Mapping[_Form, str]:
    # CASE, since the operands of AND are evaluated in any order, and casting a word to a number fails.
    kind, value = f"CASE json_typeof({row}.value)", f"({row}.value #>> CAST('{{}}' AS text[]))"
    return {
        "string": f"({kind} WHEN 'string' THEN {value} END) COLLATE \"C\"",
        "number": f"{kind} WHEN 'number' THEN CAST({value} AS double precision) END",
        "bool": f"{kind} WHEN 'boolean' THEN CAST({value} AS boolean) END",
        "exists": f"json_typeof({row}.value) <> 'null'",
    }
