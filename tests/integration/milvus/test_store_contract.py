"""Contract of every vector store: memory, Milvus Lite and a Milvus server."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from catalog.product_rows import MAX_ID_CHARS
from core.errors import Conflict, InputTooLarge, InvalidInput, NotFound
from core.filters import parse_filter
from core.ports import VectorStore
from core.types import CollectionInfo
from milvus.config import IndexConfig, IndexedAttribute, MilvusConfig
from milvus.store import MilvusStore
from tests.support.vector_stores import row, unit


def test_a_written_row_is_found_by_the_next_search(store: VectorStore, collection: str) -> None:
    for number in range(5):
        vector = unit(1, number)
        store.upsert(collection, [row(f"i{number}", vector, f"p{number}", revision=2**60)])
        best = store.search_products(collection, 3 * vector, 1)[0]
        assert (best.image_id, best.revision, best.product_id) == (f"i{number}", 2**60, f"p{number}")
        assert best.score == pytest.approx(1.0, abs=1e-5)


def test_the_longest_id_of_a_catalog_is_indexed(store: VectorStore, collection: str) -> None:
    longest = "🧥" * MAX_ID_CHARS
    store.upsert(collection, [row("i", unit(1), longest)])
    assert [hit.product_id for hit in store.search_products(collection, unit(1), 1)] == [longest]
    assert store.search_products(collection, unit(1), 1, exclude_products=[longest]) == []


@pytest.mark.parametrize("engine", ["lite", "server"])
def test_a_written_row_is_found_by_every_reader(engine: str, request: pytest.FixtureRequest) -> None:
    uri = request.getfixturevalue(f"{engine}_uri")
    writer = MilvusStore(MilvusConfig(uri=uri))
    readers = [MilvusStore(MilvusConfig(uri=uri, consistency=level)) for level in ("Session", "Eventually")]
    writer.ensure_collection("contract", 8)
    for number in range(5):
        writer.upsert("contract", [row(f"i{number}", unit(1, number), f"p{number}")])
        assert {len(reader.search_products("contract", unit(1), 9)) for reader in readers} == {number + 1}
    writer.delete("contract", list(writer.keys("contract")))
    assert {len(reader.search_products("contract", unit(1), 9)) for reader in readers} == {0}
    for each in (writer, *readers):
        each.close()


def test_writing_and_deleting_may_be_repeated(store: VectorStore, collection: str) -> None:
    rows = [row("a", unit(1), revision=1), row("a", unit(0, 1), revision=2)]
    store.upsert(collection, rows)
    store.upsert(collection, rows)
    assert sorted(store.keys(collection)) == ["a:1", "a:2"]
    store.delete(collection, ["a:1", "missing:1"])
    store.delete(collection, ["a:1"])
    store.delete(collection, [])
    assert list(store.keys(collection)) == ["a:2"]
    assert CollectionInfo(collection, 8, 1) in store.collections()
    assert store.search_products(collection, unit(1), 5)[0].revision == 2
    store.delete(collection, ["a:2"])
    assert store.search_products(collection, unit(1), 5) == []
    store.upsert(collection, rows[:1])
    assert len(store.search_products(collection, unit(1), 5)) == 1


def test_keys_come_in_order_and_within_bounds(
    store: VectorStore, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milvus.store._KEYS_A_PAGE", 3)
    store.upsert(collection, [row(name, unit(1)) for name in ("08", "1f", "20", "2f", "80", "a0", "zz")])
    assert list(store.keys(collection)) == ["08:1", "1f:1", "20:1", "2f:1", "80:1", "a0:1", "zz:1"]
    assert list(store.keys(collection, "1f", "a0")) == ["1f:1", "20:1", "2f:1", "80:1"]
    assert list(store.keys(collection, "", "1f:1")) == ["08:1"]
    assert list(store.keys(collection, "80:1")) == ["80:1", "a0:1", "zz:1"]


def test_fetch_returns_what_was_written(store: VectorStore, collection: str) -> None:
    vectors = np.random.default_rng(1).normal(size=(1200, 8)).astype(np.float32)
    strange = 'it\'s "quoted" \\ %_[]\n\x01 ü漢😀'
    store.upsert(collection, [row(f"{strange}{i}", vector) for i, vector in enumerate(vectors)])
    found = store.fetch(collection, [f"{strange}{i}:1" for i in range(1200)] + ["missing:1"])
    assert len(found) == 1200
    assert all(np.allclose(found[f"{strange}{i}:1"], vectors[i], atol=1e-6) for i in range(1200))
    assert set(store.keys(collection)) == set(found)


def test_what_cannot_work_is_refused_before_anything_is_written(store: VectorStore, collection: str) -> None:
    good = row("good", unit(1))
    bad_rows = {
        "not finite": row("a", np.array([np.nan, *range(7)], dtype=np.float32)),
        "infinite": row("a", np.array([np.inf, *range(7)], dtype=np.float32)),
        "zero": row("a", np.zeros(8, dtype=np.float32)),
        "dimension": row("a", np.ones(9, dtype=np.float32)),
        "twice": row("good", unit(1)),
        "long id": row("i" * 801, unit(1)),
        "empty id": row("a", unit(1), product_id=""),
        "surrogate": row("a", unit(1), color="\ud800"),
        "revision": row("a", unit(1), revision=2**63),
    }
    for wrong in bad_rows.values():
        with pytest.raises(InvalidInput):
            store.upsert(collection, [good, wrong])
    with pytest.raises(InputTooLarge):
        store.upsert(collection, [good, row("a", unit(1), text="x" * 70_000)])
    assert list(store.keys(collection)) == []
    for vector in (np.full(8, np.nan, dtype=np.float32), np.zeros(8, dtype=np.float32), unit(1)[:7]):
        with pytest.raises(InvalidInput):
            store.search_products(collection, vector, 1)
    with pytest.raises(InvalidInput):
        store.search_products(collection, unit(1), 0)


def test_a_value_that_does_not_fit_its_declaration_is_refused_before_anything_is_written(
    declaring_store: VectorStore, declared: str
) -> None:
    good = row("good", unit(1), price=1, Price="one", color=["red", "blue"])
    for wrong in ({"price": "1"}, {"price": [1]}, {"Price": 1}, {"漢": 1}, {"Price": "x" * 1025}):
        with pytest.raises(InvalidInput, match=r"milvus\.indexed_attributes"):
            declaring_store.upsert(declared, [good, row("bad", unit(1), **wrong)])
    assert list(declaring_store.keys(declared)) == []
    longest = "漢" * 1024
    declaring_store.upsert(declared, [good, row("long", unit(1), "long", Price=longest)])
    found = declaring_store.search_products(declared, unit(1), 5, parse_filter({"Price": longest}))
    assert [hit.product_id for hit in found] == ["long"]


@pytest.mark.parametrize("engine", ["lite", "server"])
def test_a_collection_keeps_its_fields_whatever_a_store_declares(
    engine: str, request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue(f"{engine}_uri")
    color = (IndexedAttribute(name="color", type="string"),)
    made = MilvusStore(MilvusConfig(uri=uri, indexed_attributes=color))
    other = MilvusStore(MilvusConfig(uri=uri))
    made.ensure_collection("with_color", 8)
    if engine == "server":
        client = MilvusClient(uri)
        assert set(client.list_indexes("with_color")) == {"attribute_color", "part", "embedding"}
        client.close()
    other.ensure_collection("with_color", 8)
    other.upsert("with_color", [row(name, unit(1), name, color=name, size=1) for name in ("red", "blue")])
    for store in (made, other):
        for filter in ({"color": "red"}, {"not": {"color": "blue"}}, {"color": {"gte": "m"}, "size": 1}):
            hits = store.search_products("with_color", unit(1), 5, parse_filter(filter))
            assert [hit.product_id for hit in hits] == ["red"]
        hits = store.score_products("with_color", unit(1), ["red", "blue"], parse_filter({"color": "blue"}))
        assert [hit.product_id for hit in hits] == ["blue"]
    made.drop_collection("with_color")
    made.close()
    other.close()


def test_a_collection_whose_index_has_another_name_stays_as_it_is(server_uri: str) -> None:
    client = MilvusClient(server_uri)
    schema = client.create_schema(auto_id=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=100)
    for field in ("image_id", "product_id"):
        schema.add_field(field, DataType.VARCHAR, max_length=100)
    schema.add_field("revision", DataType.INT64)
    schema.add_field("attributes", DataType.JSON)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=8)
    client.create_collection("nameless", schema=schema)
    index = client.prepare_index_params()
    # As a server may call one that was made without a name.
    index.add_index("embedding", index_name="_default_idx", index_type="FLAT", metric_type="COSINE")
    client.create_index("nameless", index)
    made = client.list_indexes("nameless")
    assert made == ["_default_idx"]
    store = MilvusStore(MilvusConfig(uri=server_uri))
    for _ in range(2):
        store.ensure_collection("nameless", 8)
    assert client.list_indexes("nameless") == made
    store.upsert("nameless", [row("a", unit(1), "p", color="red")])
    for filter in (None, parse_filter({"color": "red"})):
        assert [hit.product_id for hit in store.search_products("nameless", unit(1), 5, filter)] == ["p"]
    assert CollectionInfo("nameless", 8, 1) in store.collections()
    store.drop_collection("nameless")
    store.close()
    client.close()


@pytest.mark.parametrize("name", ["", "Upper", "1digit", "dash-ed", "sp ace", "x" * 256, "ü"])
def test_a_name_that_a_server_would_refuse_is_refused(store: VectorStore, name: str) -> None:
    with pytest.raises(InvalidInput):
        store.ensure_collection(name, 8)
    with pytest.raises(InvalidInput):
        store.set_alias(name, "anything")


def test_a_collection_keeps_its_dimension(store: VectorStore, collection: str) -> None:
    store.ensure_collection(collection, 8)
    with pytest.raises(Conflict):
        store.ensure_collection(collection, 16)
    for dimension in (0, 1, 32769):
        with pytest.raises(InvalidInput):
            store.ensure_collection("model_x", dimension)


def test_an_alias_points_at_one_collection_and_never_drops_it(store: VectorStore, collection: str) -> None:
    alias, other = f"alias_{uuid.uuid4().hex[:8]}", f"other_{uuid.uuid4().hex[:8]}"
    assert not store.has_collection(other)
    store.ensure_collection(other, 8)
    assert store.has_collection(other)
    assert store.alias_target(alias) is None
    assert store.alias_target(collection) is None
    for target in (collection, collection, other):
        store.set_alias(alias, target)
        assert store.alias_target(alias) == target
        assert store.has_collection(alias)
    with pytest.raises(Conflict):
        store.drop_collection(alias)
    with pytest.raises(Conflict):
        store.ensure_collection(alias, 8)
    with pytest.raises(Conflict):
        store.set_alias(collection, other)
    with pytest.raises(NotFound):
        store.set_alias(alias, "missing")
    assert {collection, other} <= {info.name for info in store.collections()}
    store.drop_collection(other)
    assert store.alias_target(alias) is None
    assert not store.has_collection(other)
    assert not store.has_collection(alias)
    store.drop_collection(other)
    store.set_alias(alias, collection)
    assert store.alias_target(alias) == collection


def test_marks_of_several_catalogs_stay_and_are_no_collections(store: VectorStore, collection: str) -> None:
    listed = store.collections()
    ours, theirs = uuid.uuid4().hex, uuid.uuid4().hex
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(store.set_mark, [ours] * 4)) == [None] * 4
    store.set_mark(theirs)
    assert {ours, theirs} <= store.marks()
    assert store.collections() == listed
    with pytest.raises(InvalidInput):
        store.set_mark("no id")


def test_several_processes_may_make_the_same_collection_at_once(store: VectorStore) -> None:
    name = f"race_{uuid.uuid4().hex[:8]}"
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: store.ensure_collection(name, 8), range(4))) == [None] * 4
    store.upsert(name, [row("a", unit(1))])
    assert len(store.search_products(name, unit(1), 1)) == 1
    store.drop_collection(name)


def test_ids_that_are_no_text_are_in_no_row(store: VectorStore, collection: str) -> None:
    store.upsert(collection, [row("a", unit(1))])
    assert store.fetch(collection, ["\ud800:1", "a:1"]).keys() == {"a:1"}
    assert store.fetch(collection, ["\ud800:1"]) == {}
    store.delete(collection, ["\ud800:1"])
    assert len(store.search_products(collection, unit(1), 1, exclude_products=["\ud800"])) == 1


def test_a_missing_collection_is_named(store: VectorStore) -> None:
    for call in (
        lambda: store.upsert("missing", [row("a", unit(1))]),
        lambda: store.delete("missing", ["a:1"]),
        lambda: store.fetch("missing", ["a:1"]),
        lambda: list(store.keys("missing")),
        lambda: store.search_products("missing", unit(1), 1),
        lambda: store.score_products("missing", unit(1), ["p"]),
    ):
        with pytest.raises(NotFound, match="missing"):
            call()


def test_a_new_collection_has_the_configured_shards(server_uri: str, lite_uri: str) -> None:
    for uri in (server_uri, lite_uri):
        store = MilvusStore(MilvusConfig(uri=uri, index=IndexConfig(shards=3)))
        store.ensure_collection("in_shards", 8)
        if uri == server_uri:
            client = MilvusClient(uri)
            assert client.describe_collection("in_shards")["num_shards"] == 3
            client.close()
        store.drop_collection("in_shards")
        store.close()
