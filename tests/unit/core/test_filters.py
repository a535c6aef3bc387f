"""Filters: what is read, what is refused, and what they mean."""

import pickle
from typing import Any

import pytest

from core.errors import InvalidInput
from core.filters import All, Any_, AnyOf, Compare, Exists, Not, matches, parse_filter
from milvus.filters import compile_filter

RED_SHIRT = {
    "color": "red",
    "price": 10,
    "sale": True,
    "sizes": ["S", "M", 44],
    "maker": None,
    'weird ["name': "x",
    "and": "both",
    "huge": 10**400,
}


def test_a_filter_is_read_into_its_tree() -> None:
    json = {
        "color": ["red", "blue"],
        "price": {"gte": 10, "lt": 50},
        "or": [{"name": {"prefix": "a"}}, {"not": {"sale": {"exists": False}}}],
        "\\and": {"eq": 1},
    }
    assert parse_filter(json) == All(
        (
            AnyOf("color", ("red", "blue")),
            All((Compare("price", "gte", 10), Compare("price", "lt", 50))),
            Any_((All((Compare("name", "gte", "a"), Compare("name", "lt", "b"))), Not(Not(Exists("sale"))))),
            AnyOf("and", (1,)),
        )
    )
    assert parse_filter({}) == All(())


@pytest.mark.parametrize(
    "json",
    [
        {},
        {"color": "red"},
        {"color": ["blue", "red"]},
        {"price": 10.0},
        {"price": {"gte": 10, "lt": 11}},
        {"price": {"in": [1, 10]}},
        {"sale": True},
        {"sizes": "M"},
        {"sizes": 44},
        {"color": {"prefix": "re"}},
        {"color": {"gte": "red", "lt": "ree"}},
        {"maker": {"exists": False}},
        {"huge": {"exists": True}},
        {"not": {"color": "blue"}},
        {"not": {"missing": {"gt": 1}}},
        {"or": [{"color": "blue"}, {"price": 10}]},
        {"and": []},
        {"\\and": "both"},
        {'weird ["name': "x"},
    ],
)
def test_the_red_shirt_passes(json: dict[str, Any]) -> None:
    assert matches(parse_filter(json), RED_SHIRT)


@pytest.mark.parametrize(
    "json",
    [
        {"color": "Red"},
        {"color": []},
        {"price": "10"},
        {"price": {"gt": 10}},
        {"price": {"lt": "a"}},
        {"sale": 1},
        {"sale": {"gte": 0}},
        {"price": True},
        {"sizes": {"prefix": "S"}},
        {"sizes": {"gte": "A"}},
        {"maker": {"exists": True}},
        {"missing": "x"},
        {"not": {}},
        {"or": []},
        {"huge": {"gt": 1}},
    ],
)
def test_the_red_shirt_does_not_pass(json: dict[str, Any]) -> None:
    assert not matches(parse_filter(json), RED_SHIRT)


@pytest.mark.parametrize(
    ("json", "path"),
    [
        (None, "filter"),
        (["color"], "filter"),
        ({"color": None}, "filter.color"),
        ({"color": ["red", None]}, "filter.color[1]"),
        ({"color": {}}, "filter.color"),
        ({"price": {"above": 1}}, "filter.price.above"),
        ({"price": {"gte": True}}, "filter.price.gte"),
        ({"price": {"gte": [1]}}, "filter.price.gte"),
        ({"price": {"in": 1}}, "filter.price.in"),
        ({"price": float("nan")}, "filter.price"),
        ({"price": {"lt": float("inf")}}, "filter.price.lt"),
        ({"price": 10**400}, "filter.price"),
        ({"name": {"prefix": 1}}, "filter.name.prefix"),
        ({"name": {"exists": 1}}, "filter.name.exists"),
        ({"name": "\ud800"}, "filter.name"),
        ({"name": "x" * 2000}, "filter.name"),
        ({"x" * 2000: 1}, "filter." + "x" * 193),
        ({"and": {"a": 1}}, "filter.and"),
        ({"or": [{"a": 1}, {"not": 5}]}, "filter.or[1].not"),
        ({"n": list(range(2000))}, "filter.n"),
    ],
)
def test_a_wrong_filter_is_refused_by_the_path_of_its_wrong_part(json: object, path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_filter(json)
    assert refused.value.param == path
    assert refused.value.message.startswith(f"{path}: ")
    assert pickle.loads(pickle.dumps(refused.value)).param == path


def test_a_filter_is_bounded_in_depth_and_number() -> None:
    deep: dict[str, Any] = {"a": 1}
    for _ in range(3000):
        deep = {"not": deep}
    with pytest.raises(InvalidInput, match="16 deep"):
        parse_filter(deep)
    with pytest.raises(InvalidInput, match="256 conditions"):
        parse_filter({"or": [{"a": 1}] * 300})


def test_values_cannot_leave_their_quotes() -> None:
    expression = compile_filter(parse_filter({'a" or key != "': '"] or (key != "") or ["'}))
    assert expression == (
        '(json_contains_any(attributes["all_string_a%22%20or%20key%20%21%3D%20%22"], '
        '["\\"] or (key != \\"\\") or [\\""]))'
    )
    assert compile_filter(None, ['x"]']) == '(product_id not in ["x\\"]"])'
    assert compile_filter(parse_filter({})) == ""
