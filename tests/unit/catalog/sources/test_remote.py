"""A paginated catalog behind HTTP as a source, on a server that fails in the usual ways."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from catalog.fetching.fetcher import Fetcher, retry_after_s
from catalog.sources.entries import Entry, Record, Source
from catalog.sources.remote import open_source
from core.errors import FetchFailed, InvalidInput
from core.sources import ImportConfig, RemoteSource
from tests.support.servers import TOKEN, Shop, shop_server

QUICK = ImportConfig(backoff_s=0.01, max_backoff_s=1.5, attempts=3)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("VITRINE_IMPORT_TOKEN", TOKEN)
    with shop_server() as running:
        running.items = [{"product_id": f"p{n}", "image": f"/p{n}.jpg"} for n in range(5)]
        yield running


def source(shop: Shop, **more: Any) -> Source:
    settings = {"url": shop.url("/items?shop=de"), "token_env": "VITRINE_IMPORT_TOKEN", "page_size": 2}
    description = RemoteSource.model_validate({"kind": "remote", **settings, **more})
    return open_source(description, Fetcher(shop.limits), QUICK)


def ids(entries: list[Entry]) -> list[str | None]:
    return [entry.product_id for entry in entries]


@pytest.mark.parametrize("paging", ["number", "link", "cursor"])
def test_pages_follow_each_other_to_the_end_and_from_any_position(shop: Shop, paging: str) -> None:
    shop.paging = paging
    opened = source(shop, paging=paging)
    every = list(opened.entries(None))
    assert ids(every) == ["p0", "p1", "p2", "p3", "p4"]
    assert [entry.row for entry in every] == [1, 2, 3, 4, 5]
    assert opened.total() == 5
    for entry in every:
        assert list(source(shop, paging=paging).entries(entry.position)) == every[entry.row :]


def test_pages_begin_where_the_source_says(shop: Shop) -> None:
    assert ids(list(source(shop, start_page=2).entries(None))) == ["p2", "p3", "p4"]
    assert [path.split("page=")[1] for path, _ in shop.requests] == ["2", "3", "4"]


def test_a_resumed_import_does_not_ask_for_pages_that_it_had(shop: Shop) -> None:
    every = list(source(shop).entries(None))
    shop.requests.clear()
    list(source(shop).entries(every[3].position))
    assert [path.split("page=")[1] for path, _ in shop.requests] == ["2", "3", "4"]


def test_the_urls_own_parameters_stay_and_images_are_relative_to_it(shop: Shop) -> None:
    (first, *_) = source(shop).entries(None)
    assert isinstance(first.content, Record)
    assert first.content.images == (shop.url("/p0.jpg"),)
    assert shop.requests[0][0] == "/items?shop=de&page_size=2&page=1"


def test_an_image_may_be_a_data_uri_of_any_length(shop: Shop) -> None:
    uri = "data:image/png;base64," + "A" * 100_000
    shop.items = [{"product_id": "a", "image": uri}]
    (entry,) = source(shop).entries(None)
    assert isinstance(entry.content, Record), entry.content
    assert entry.content.images == (uri,)


def test_a_busy_server_is_asked_again_when_it_says(shop: Shop) -> None:
    shop.failures["/items"] = [(429, {"Retry-After": "1"}), (500, {})]
    started = time.monotonic()
    assert len(list(source(shop).entries(None))) == 5
    assert time.monotonic() - started >= 1


def test_a_server_that_keeps_failing_ends_the_import(shop: Shop) -> None:
    shop.failures["/items"] = [(503, {})] * 3
    with pytest.raises(FetchFailed, match="503"):
        list(source(shop).entries(None))
    assert len(shop.requests) == 3


def test_a_wrong_token_is_reported_without_showing_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRINE_IMPORT_TOKEN", "wrong-secret")
    with pytest.raises(InvalidInput, match="VITRINE_IMPORT_TOKEN") as caught:
        list(source(shop).entries(None))
    assert "401" in caught.value.message
    assert "wrong-secret" not in caught.value.message
    assert len(shop.requests) == 1
    with pytest.raises(InvalidInput, match="token_env"):
        list(source(shop, token_env=None).entries(None))
    monkeypatch.delenv("VITRINE_IMPORT_TOKEN")
    with pytest.raises(InvalidInput, match="holds no token"):
        source(shop)


@pytest.mark.parametrize(
    "name", ["HOME", "AWS_SECRET_ACCESS_KEY", "VITRINE_IMPORT_TOKENS", "X_VITRINE_IMPORT_TOKEN"]
)
def test_no_other_variable_can_be_sent(name: str) -> None:
    with pytest.raises(ValueError, match="token_env"):
        RemoteSource(kind="remote", url="https://shop.test", token_env=name)


def test_the_token_does_not_follow_to_other_hosts(shop: Shop) -> None:
    with shop_server() as other:
        shop.failures["/items"] = [(302, {"Location": other.url("/items")})]
        limits = shop.limits.model_copy(update={"ports": (shop.port, other.port)})
        remote = RemoteSource(kind="remote", url=shop.url("/items"), token_env="VITRINE_IMPORT_TOKEN")
        with pytest.raises(InvalidInput, match="401"):
            list(open_source(remote, Fetcher(limits), QUICK).entries(None))
        assert [headers.get("Authorization") for _, headers in other.requests] == [None]
    assert shop.requests[0][1]["Authorization"] == f"Bearer {TOKEN}"


def test_a_server_that_ignores_the_page_is_noticed(shop: Shop) -> None:
    shop.same_page = True
    with pytest.raises(InvalidInput, match="same page"):
        list(source(shop).entries(None))


def test_fields_that_are_not_there_are_reported_with_those_that_are(shop: Shop) -> None:
    with pytest.raises(InvalidInput, match="'items', 'total'"):
        list(source(shop, items_field="products").entries(None))
    with pytest.raises(InvalidInput, match="columns: 'image', 'product_id'"):
        list(source(shop, fields={"product_id": "sku"}).entries(None))


def test_an_item_that_is_broken_fails_alone(shop: Shop) -> None:
    shop.items[1:3] = ["text", {"image": "/x.jpg"}]  # type: ignore[list-item]
    entries = list(source(shop).entries(None))
    assert ids(entries) == ["p0", None, None, "p3", "p4"]
    assert [isinstance(entry.content, InvalidInput) for entry in entries] == [False, True, True, False, False]


def test_a_catalog_that_is_empty_has_no_products(shop: Shop) -> None:
    shop.items = []
    assert list(source(shop).entries(None)) == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after_s(value, datetime(2015, 10, 21, 7, 28, tzinfo=UTC)) == seconds
