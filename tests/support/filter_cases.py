"""Odd attributes and odd filters on them, as hypothesis draws them."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from core.filters import Kind

Case = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""Attributes of some products, and filters."""

ODD_NAMES = (
    "and", "or", "not", "in", "like", "exists", "is", "null", "true", "json_contains", "attributes", "key",
    "embedding", "$meta", "a b", "a.b", "a/b", "a~1b", 'a"b', "a'b", "a\\b", "a[0]", "ü", "漢", "😀", "%41", "",
    "names", "one_string_x", " ", "\n", "Price", "price",
)  # fmt: skip
characters = st.characters(codec="utf-8")
names = st.one_of(st.sampled_from(ODD_NAMES), st.text(characters, max_size=8))
ODD_TEXTS = [
    "",
    "red",
    "Red",
    "re",
    "%",
    "_",
    "\\",
    '"',
    "\x00",
    "\n\t\b\x01\x7f",
    "\\b\\u0001",
    "\ud7ff",
    "\U0010ffff",
]
ODD_NUMBERS = [-0.0, 1e-5, 1e300, 2**53 + 1, 2**63, -(2**64)]
texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(characters, max_size=6))
numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(ODD_NUMBERS),
).filter(lambda value: abs(value) < 1e308)
scalars = st.one_of(texts, numbers, st.booleans())
values = st.one_of(
    scalars,
    scalars,
    st.lists(st.one_of(scalars, st.none(), st.just({"nested": 1})), max_size=4),
    st.none(),
    st.just({"nested": [1]}),
)
DECLARED: Mapping[str, Kind] = {
    "price": "number",
    "a b": "string",
    "漢": "bool",
    "Price": "string",
    "%41": "number",
}
"""Attributes that have fields of their own, beside others that have none."""
_OF_KIND: Mapping[Kind, st.SearchStrategy[Any]] = {"string": texts, "number": numbers, "bool": st.booleans()}


@st.composite
def cases(draw: st.DrawFn, declared: Mapping[str, Kind] | None = None) -> Case:
    """Attributes of some products, and filters that mostly speak of what these products have.

    Of `declared` attributes products have only values of the declared kind, or none.
    """
    used = draw(
        st.lists(st.sampled_from([*declared]) if declared else names, min_size=1, max_size=3, unique=True)
    )
    if declared:
        used = [*dict.fromkeys([*used, draw(names)])]
    drawn = {
        name: st.one_of(_OF_KIND[declared[name]], st.none()) if declared and name in declared else values
        for name in used
    }
    some_attributes = st.fixed_dictionaries({}, optional=drawn).filter(bool)
    products = draw(st.lists(some_attributes, min_size=10, max_size=25))
    pairs = [
        (name, value)
        for product in products
        for name, each in product.items()
        for value in (each if isinstance(each, list) else [each])
        if isinstance(value, str | bool | int | float)
    ]
    known = [value for _, value in pairs]
    scalar = st.one_of(st.sampled_from(known), st.sampled_from(known), scalars) if known else scalars
    ordered = scalar.filter(lambda value: not isinstance(value, bool))
    strings = scalar.filter(lambda value: isinstance(value, str)).map(_first_half)
    condition = st.one_of(
        scalar,
        st.lists(scalar, max_size=4),
        st.fixed_dictionaries({"eq": scalar}),
        st.fixed_dictionaries({"in": st.lists(scalar, max_size=4)}),
        st.fixed_dictionaries({"exists": st.booleans()}),
        st.fixed_dictionaries({"prefix": st.one_of(strings, texts)}),
        st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), ordered, min_size=1, max_size=2),
    )
    name = st.sampled_from([*used, *used, draw(names)]).map(lambda each: f"\\{each}")
    some = st.dictionaries(name, condition, min_size=1, max_size=2)
    # What some product has is what tells it from the others.
    of_one = st.sampled_from(pairs or [(used[0], 1)]).map(lambda pair: {f"\\{pair[0]}": pair[1]})
    filters = st.recursive(
        st.one_of(some, of_one),
        lambda inner: st.one_of(
            st.fixed_dictionaries({"not": inner}),
            st.fixed_dictionaries({"and": st.lists(inner, max_size=3)}),
            st.fixed_dictionaries({"or": st.lists(inner, max_size=3)}),
        ),
        max_leaves=5,
    )
    return products, draw(st.lists(filters, min_size=8, max_size=8))


def _first_half(text: object) -> str:
    return str(text)[: len(str(text)) // 2 + 1]
