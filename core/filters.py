"""Typed filters on a product's attributes: the JSON that a caller sends, and what it means.

A filter is an object. Each key is an attribute name and each value a condition; all must hold:

    {"color": "red", "price": {"gte": 10, "lt": 50}, "brand": ["a", "b"]}

Conditions: a scalar (equal), a list (any of), or an object of `eq`, `in`, `gt`, `gte`, `lt`, `lte`,
`prefix`, `exists`. The keys `and`, `or` (lists of filters) and `not` (a filter) combine. A comparison
with an attribute that is missing or of another type is false. `milvus/filters.py` compiles the tree to
an expression; `matches` here is its meaning in Python.
"""

from dataclasses import dataclass
from typing import Literal

Scalar = str | bool | int | float
RangeOperator = Literal["gt", "gte", "lt", "lte"]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The attribute equals one of the values."""

    name: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """The attribute is ordered so against the value."""

    name: str
    operator: RangeOperator
    value: str | int | float


@dataclass(frozen=True, slots=True)
class Prefix:
    """The attribute is a string that begins so."""

    name: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Exists:
    """The attribute is there (or is not)."""

    name: str
    wanted: bool


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; an empty one always does."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Any_:
    """At least one part holds; an empty one never does."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "Filter"


Filter = AnyOf | Compare | Prefix | Exists | All | Any_ | Not
