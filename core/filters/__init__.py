"""Typed filters on a product's attributes: the JSON that a caller sends, and what it means.

A filter is an object. Each key is an attribute name and each value a condition; all must hold:

    {"color": "red", "price": {"gte": 10, "lt": 50}, "brand": ["a", "b"]}

Conditions: a scalar (equal), a list (any of), or an object of `eq`, `in`, `gt`, `gte`, `lt`, `lte`,
`prefix`, `exists`. The keys `and`, `or` (lists of filters) and `not` (a filter) combine. A backslash in
front of a key takes the rest as an attribute name: `\\and` is the attribute called "and".

A comparison with an attribute that is missing or of another type is false. An attribute that is a list
equals a value when one of its elements does; it has no order and no prefix. Numbers are compared as
64-bit floats, strings by code point; a bool is not a number. `null` counts as missing.

`parse_filter` reads the JSON, `matches` is the meaning in Python; `milvus/filters.py` and
`catalog/filters.py` compile the same tree to an expression of Milvus and a condition in SQL.
"""

from core.filters.meaning import Kind, kind_of, matches
from core.filters.parse import parse_filter
from core.filters.tree import All, Any_, AnyOf, Compare, Exists, Filter, Not, Prefix, RangeOperator, Scalar

__all__ = [
    "All",
    "AnyOf",
    "Any_",
    "Compare",
    "Exists",
    "Filter",
    "Kind",
    "Not",
    "Prefix",
    "RangeOperator",
    "Scalar",
    "kind_of",
    "matches",
    "parse_filter",
]
