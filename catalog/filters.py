"""Compile a filter to a SQL condition on the attributes of products; the one place that reads JSON in SQL.

The condition is what `core.filters.matches` says of all attributes that `catalog.validation` lets in: no string
of theirs holds a NUL and no number leaves 64 bits. A filter may name both, so that it is decided here what these
mean; no database has to. The condition is never NULL, so that NOT around it is the opposite.

Each JSON value is read by its kind: as a string by code point, as a 64-bit float, as a bool. A SQL value of
another kind is NULL there, and so equals nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from sqlalchemy import (
    JSON,
    Boolean,
    ColumnElement,
    Double,
    SQLColumnExpression,
    String,
    TableValuedAlias,
    and_,
    case,
    cast,
    column,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
    type_coerce,
)

from core.filters import All, Any_, AnyOf, Compare, Exists, Filter, Kind, Not, Prefix, Scalar, kind_of

_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_AFTER_PREFIX = {"gt": "gt", "gte": "gt", "lt": "lte", "lte": "lte"}


@dataclass(frozen=True, slots=True)
class _Value:
    """A JSON value in the form of each kind, NULL in all but its own; `is_null`: it is null or missing."""

    of_kind: Mapping[Kind, ColumnElement[Any]]
    is_null: ColumnElement[bool]


_Condition = ColumnElement[bool] | bool
_Test = Callable[[_Value], ColumnElement[bool]]


def compile_filter(filter: Filter, attributes: SQLColumnExpression[Any], dialect: str) -> ColumnElement[bool]:
    """Write the filter as a condition on a JSON column of objects; values go as bound parameters."""
    find = _find_in_postgresql if dialect == "postgresql" else _find_in_sqlite

    def compiled(filter: Filter) -> _Condition:
        match filter:
            case All(parts):
                return joined(parts, False)
            case Any_(parts):
                return joined(parts, True)
            case Not(part):
                return _opposite(compiled(part))
            case Exists(name, wanted):
                there = holds(name, lambda value: not_(value.is_null))
                return there if wanted else _opposite(there)
            case AnyOf(name, values):
                return holds(name, _equals_one_of(values), elements=True)
            case Compare(name, order, value):
                return holds(name, _is_ordered(order, value))
            case Prefix(name, prefix):
                return holds(name, _begins_with(prefix))
            case _:
                assert_never(filter)

    def joined(parts: Sequence[Filter], decisive: bool) -> _Condition:
        """Join by OR where one that is true decides, by AND where one that is false does.

        What is known here stays out of SQL: a filter may hold any number of empty ones.
        """
        conditions = [compiled(part) for part in parts]
        if any(each is decisive for each in conditions):
            return decisive
        unknown = [each for each in conditions if not isinstance(each, bool)]
        if not unknown:
            return not decisive
        return or_(*unknown) if decisive else and_(*unknown)

    def holds(name: str, test: _Test | None, elements: bool = False) -> _Condition:
        if test is None or not _is_storable(name):
            return False
        return find(attributes, name, test, elements)

    condition = compiled(filter)
    if isinstance(condition, bool):
        return true() if condition else false()
    return condition


def _opposite(condition: _Condition) -> _Condition:
    return not condition if isinstance(condition, bool) else not_(condition)


def _equals_one_of(values: tuple[Scalar, ...]) -> _Test | None:
    kinds: dict[Kind, list[Any]] = {"string": [], "number": [], "bool": []}
    for value in values:
        if (found := kind_of(value)) is not None and (found[0] != "string" or _is_storable(found[1])):
            kinds[found[0]].append(found[1])
    wanted = {kind: some for kind, some in kinds.items() if some}
    if not wanted:
        return None
    return lambda value: or_(*(value.of_kind[kind].in_(some) for kind, some in wanted.items()))


def _is_ordered(order: str, value: Scalar) -> _Test | None:
    found = kind_of(value)
    if found is None or found[0] == "bool":
        return None
    kind, limit = found
    if kind == "string" and "\0" in limit:
        # The strings before "a\0b" are those up to "a", for none holds a NUL.
        order, limit = _AFTER_PREFIX[order], limit.partition("\0")[0]
    return lambda value: value.of_kind[kind].bool_op(_OPERATORS[order])(limit)


def _begins_with(prefix: str) -> _Test | None:
    if not _is_storable(prefix):
        return None
    return lambda value: func.substr(value.of_kind["string"], 1, len(prefix), type_=String()) == prefix


def _is_storable(text: str) -> bool:
    return "\0" not in text


def _find_in_sqlite(
    attributes: SQLColumnExpression[Any], name: str, test: _Test, elements: bool
) -> ColumnElement[bool]:
    # By the keys of json_each and not by a path: versions of SQLite differ in how a path quotes odd names.
    attribute = _json_each(attributes)
    found = test(_sqlite_value(attribute))
    if elements:
        array = case((attribute.c.type == "array", attribute.c.value), else_="[]")
        element = _json_each(array)
        found = or_(found, _any_row(element, test(_sqlite_value(element))))
    return _any_row(attribute, and_(attribute.c.key == literal(name), found))


def _json_each(json: SQLColumnExpression[Any]) -> TableValuedAlias:
    return func.json_each(json).table_valued(column("key", String), column("type", String), "value").alias()


def _sqlite_value(row: TableValuedAlias) -> _Value:
    kind, value = row.c.type, row.c.value
    return _Value(
        of_kind={
            "string": case((kind == "text", type_coerce(value, String))),
            "number": case((kind.in_(("integer", "real")), cast(value, Double))),
            "bool": case((kind == "true", true()), (kind == "false", false())),
        },
        is_null=kind == "null",
    )


def _find_in_postgresql(
    attributes: SQLColumnExpression[Any], name: str, test: _Test, elements: bool
) -> ColumnElement[bool]:
    value = func.json_extract_path(attributes, literal(name, String), type_=JSON())
    if not elements:
        return func.coalesce(test(_postgresql_value(value)), false())
    is_array = func.json_typeof(value) == "array"
    array = case((is_array, value), else_=func.json_build_array(value, type_=JSON()))
    element = func.json_array_elements(array).table_valued(column("value", JSON)).alias()
    return _any_row(element, test(_postgresql_value(element.c.value)))


def _postgresql_value(value: ColumnElement[Any]) -> _Value:
    kind: ColumnElement[str] = func.json_typeof(value, type_=String())
    text: ColumnElement[str] = value.op("#>>", return_type=String())(literal_column("'{}'::text[]"))
    # CASE, for the parts of AND are computed in any order, and a word is no number.
    return _Value(
        of_kind={
            "string": case((kind == "string", text)).collate("C"),
            "number": case((kind == "number", cast(text, Double))),
            "bool": case((kind == "boolean", cast(text, Boolean))),
        },
        is_null=func.coalesce(kind == "null", true()),
    )


def _any_row(rows: TableValuedAlias, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists(select(literal_column("1")).select_from(rows).where(condition))
