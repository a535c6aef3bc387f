"""Declared attributes: their fields, the values that these take, and what a list of them makes of collections."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from core.errors import InvalidInput
from core.filters import Kind, parse_filter
from core.types import Attributes
from milvus import schema
from milvus.config import MilvusConfig
from milvus.filters import compile_filter
from milvus.memory import MemoryStore
from milvus.schema import attribute_of, check_field, encode_attributes, encode_rows
from tests.support.filter_cases import ODD_NAMES
from tests.support.vector_stores import row, unit

DECLARED: dict[str, Kind] = {"color": "string", "price": "number", "sale": "bool"}


def config(*attributes: tuple[str, str]) -> MilvusConfig:
    listed = [{"name": name, "type": kind} for name, kind in attributes]
    return MilvusConfig.model_validate({"uri": "http://milvus:19530", "indexed_attributes": listed})


def test_another_list_is_another_index_schema_and_another_order_is_not() -> None:
    color, price = ("color", "string"), ("price", "number")
    assert config().index_schema == ""
    assert config(color, price).index_schema == config(price, color).index_schema
    others = {config(*some).index_schema for some in [(color,), (price,), (("color", "number"),)]}
    assert len(others | {config(color, price).index_schema}) == 4
    assert all(len(each) == 8 for each in others)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ([("color", "string"), ("color", "number")], "'color' is declared twice"),
        ([("漢" * 60, "string")], "cannot be declared: its name is too long"),
        ([("color", "list")], "string"),
        ([("", "string")], "at least 1 character"),
    ],
)
def test_a_list_that_cannot_be_is_refused(attributes: list[tuple[str, str]], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        config(*attributes)


def test_the_name_of_an_attribute_can_be_read_from_that_of_its_field() -> None:
    names = [name for name in ODD_NAMES if name] + ["sale_price", "a_5f_", "a__b", "_20_"]
    fields = [check_field(name) for name in names]
    assert [attribute_of(field) for field in fields] == names
    assert all(field.replace("_", "").isalnum() and field.isascii() for field in fields)
    assert [attribute_of(name) for name in ("attributes", "key", "embedding")] == [None] * 3


def test_the_halves_of_a_collection_are_about_equal_and_depend_on_keys_alone() -> None:
    halves = [
        [
            each["part"]
            for each in encode_rows([row(f"i{n}", unit(1), color=color) for n in range(2000)], 8, DECLARED)
        ]
        for color in ("red", "blue")
    ]
    assert halves[0] == halves[1]
    assert 900 < sum(halves[0]) < 1100
    assert "part" not in encode_rows([row("i", unit(1))], 8)[0]


def test_rows_of_one_product_encode_its_attributes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Attributes] = []

    def encode(attributes: Attributes, declared: Mapping[str, Kind]) -> dict[str, Any]:
        encoded.append(attributes)
        return encode_attributes(attributes, declared)

    monkeypatch.setattr(schema, "encode_attributes", encode)
    first, other = row("i0", unit(1), color="red"), row("i1", unit(1), "other", color="blue")
    more = [replace(first, item=replace(first.item, image_id=f"i{number}")) for number in range(2, 5)]
    rows = encode_rows([first, other, *more], 8, DECLARED)
    assert encoded == [{"color": "red"}, {"color": "blue"}]
    assert [each["attribute_color"] for each in rows] == ["=red", "=blue", "=red", "=red", "=red"]


def test_a_declared_attribute_stands_in_its_field_alone() -> None:
    stored = encode_attributes({"color": "red", "price": -0.0, "sale": False, "x": 1}, DECLARED)
    text = stored.pop("attributes")
    assert stored == {"attribute_color": "=red", "attribute_price": 0.0, "attribute_sale": 0}
    assert "x" in text
    assert "color" not in text
    missing = encode_attributes({"color": None}, DECLARED)
    del missing["attributes"]
    assert missing == {
        "attribute_color": "",
        "attribute_price": -sys.float_info.max,
        "attribute_sale": -1,
    }


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (
            {"color": ["red", "blue"]},
            "the attribute 'color' is a list; milvus.indexed_attributes declares it as one ",
        ),
        ({"color": 7}, "'color' is 7; milvus.indexed_attributes declares it as one string"),
        ({"color": "r" * 1025}, "one string of at most 1024 characters"),
        ({"price": "10"}, "'price' is \"10\"; milvus.indexed_attributes declares it as one number"),
        ({"price": True}, "'price' is true"),
        ({"price": 10**400}, "one number"),
        ({"price": -sys.float_info.max}, "one number"),
        ({"sale": 1}, "'sale' is 1; milvus.indexed_attributes declares it as one bool"),
        ({"sale": {"until": 1}}, "'sale' is {\"until\": 1}"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_declaration(
    attributes: dict[str, Any], reason: str
) -> None:
    store = MemoryStore(declared=DECLARED)
    with pytest.raises(InvalidInput) as caught:
        store.check_attributes(attributes)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("filter", "expression"),
    [
        ({"color": ["red", 7]}, '(attribute_color in ["=red"])'),
        ({"not": {"color": "red"}}, '(attribute_color not in ["=red"])'),
        ({"color": 7}, '(key == "")'),
        ({"not": {"sale": "yes"}}, '(key != "")'),
        ({"sale": True}, "(attribute_sale in [1])"),
        ({"price": {"gt": 10}}, "(attribute_price > 10.0)"),
        (
            {"price": {"lt": 10}},
            f"((attribute_price > {-sys.float_info.max!r}) and (attribute_price < 10.0))",
        ),
        ({"not": {"price": {"gte": 10}}}, "(attribute_price < 10.0)"),
        ({"price": {"gt": -0.0}}, "(attribute_price > 0.0)"),
        ({"price": -0.0}, "(attribute_price in [0.0])"),
        (
            {"not": {"price": {"lte": 1}}},
            f"((attribute_price == {-sys.float_info.max!r}) or (attribute_price > 1.0))",
        ),
        ({"price": {"gte": -sys.float_info.max}}, f"((attribute_price > {-sys.float_info.max!r}) and "),
        ({"color": {"exists": True}}, '(attribute_color > "")'),
        ({"color": {"exists": False}}, '(attribute_color == "")'),
        ({"size": 1}, '(json_contains_any(attributes["all_number_size"], [1.0]))'),
    ],
)
def test_a_filter_names_the_fields_of_declared_attributes(filter: dict[str, Any], expression: str) -> None:
    assert compile_filter(parse_filter(filter), declared=DECLARED).startswith(expression)
