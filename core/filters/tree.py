"""The tree that a filter is: conditions on attributes and their combinations."""

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
