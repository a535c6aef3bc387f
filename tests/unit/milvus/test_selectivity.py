"""Searches under a filter: shares are counted seldom, and few are split."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import grpc
import numpy as np
import pytest

from core.errors import NotFound, StoreUnavailable, VitrineError
from core.filters import parse_filter
from milvus.config import IndexConfig, MilvusConfig
from milvus.connection import Connection
from milvus.filters import Shares, halves, width
from milvus.store import MilvusStore


def test_a_share_is_counted_once_for_some_time_and_not_without_a_filter() -> None:
    counted: list[tuple[str, str]] = []

    def count(collection: str, expression: str, _timeout_s: float) -> int:
        counted.append((collection, expression))
        return 10 if expression else 40

    shares = Shares(count)
    assert shares.of("a", "") == 1.0
    assert counted == []
    assert [shares.of("a", "x") for _ in range(3)] == [0.25] * 3
    assert counted == [("a", ""), ("a", "x")]
    assert shares.of("b", "x") == 0.25


def test_an_empty_collection_has_a_share() -> None:
    assert Shares(lambda *_: 0).of("a", "x") == 0.0


@pytest.mark.parametrize("error", [StoreUnavailable("late"), NotFound("no collection")])
def test_a_count_that_fails_is_no_failure_and_not_tried_again_at_once(error: VitrineError) -> None:
    tried: list[float] = []

    def count(_collection: str, expression: str, timeout_s: float) -> int:
        tried.append(timeout_s)
        if expression:
            raise error
        return 10

    shares = Shares(count)
    assert [shares.of("a", "x") for _ in range(3)] == [0.06] * 3
    assert len(tried) == 2
    assert tried[1] < tried[0] == 1.0


def test_searches_that_need_the_same_share_wait_for_one_count() -> None:
    counted: list[str] = []
    begun, go_on = Event(), Event()

    def count(_collection: str, expression: str, _timeout_s: float) -> int:
        counted.append(expression)
        begun.set()
        assert go_on.wait(30)
        return 1

    shares = Shares(count)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(shares.of, "a", "x") for _ in range(4)]
        assert begun.wait(30)
        go_on.set()
        assert [each.result() for each in asked] == [1.0] * 4
    assert counted == ["", "x"]


class LateToCount:
    """A client of a server that searches, and does not count within the time that it has."""

    def __init__(self) -> None:
        self.counts: list[dict[str, Any]] = []
        self.widths: list[int] = []

    def describe_collection(self, _name: str, **_: Any) -> dict[str, Any]:
        return {"fields": [{"name": "embedding", "type": 101, "params": {"dim": 2}}]}

    def list_indexes(self, _name: str, **_: Any) -> list[str]:
        return ["embedding"]

    def describe_index(self, _name: str, _index: str, **_: Any) -> dict[str, str]:
        return {"index_type": "HNSW"}

    def search(self, _name: str, _vectors: Any, **options: Any) -> list[list[Any]]:
        self.widths.append(options["search_params"]["params"]["ef"])
        return [[]]


class Late(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("error", [Late(), TimeoutError("no answer")])
def test_a_search_under_a_filter_is_answered_where_the_server_does_not_count_in_time(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = LateToCount()

    def query(asked: LateToCount, _name: str, **options: Any) -> list[Any]:
        asked.counts.append(options)
        raise error

    monkeypatch.setattr("milvus.store.MilvusClient.query", query)
    monkeypatch.setattr("milvus.store.MilvusClient.search", LateToCount.search)
    monkeypatch.setattr(Connection, "_connect", lambda *_: client)
    monkeypatch.setattr("milvus.filters._COUNT_S", 0.05)
    store = MilvusStore(MilvusConfig(uri="http://milvus:19530"))
    vector = np.array([1, 0], dtype=np.float32)
    for _ in range(2):
        assert store.search_products("a", vector, 5, parse_filter({"color": "red"})) == []
    assert client.widths == [width(0.0, 35, IndexConfig())] * 2
    assert {each["consistency_level"] for each in client.counts} == {"Eventually"}
    assert max(each["timeout"] for each in client.counts) <= 0.05


@pytest.mark.parametrize("share", [0.061, 0.07, 0.08])
def test_what_is_too_much_to_compare_and_too_little_for_a_graph_is_searched_by_halves(share: float) -> None:
    assert halves("x or y", share) == ["(x or y) and (part == 0)", "(x or y) and (part == 1)"]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.06, 0.081, 0.1, 0.5, 1.0])
def test_any_other_filter_is_one_search(share: float) -> None:
    assert halves("x or y", share) == ["x or y"]


def test_a_search_is_wider_the_fewer_rows_pass_and_within_bounds() -> None:
    index = IndexConfig()
    assert width(1.0, 50, index) == index.min_ef
    assert width(0.5, 50, index) < width(0.25, 50, index) < width(0.06, 50, index)
    assert width(0.0, 50, index) <= index.max_ef
    assert width(1.0, 5000, index) == 10_000
    assert width(1.0, 16384, index) == 16384
