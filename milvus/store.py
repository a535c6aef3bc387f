"""Vector store on Milvus: collections, aliases, rows and searches."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from core.batching import batched
from core.errors import Conflict, NotFound
from core.filters import Filter
from core.types import CollectionInfo, Hit, Vector, VectorRow
from milvus.config import EXACT_INDEXES, IndexConfig, MilvusConfig
from milvus.connection import NOT_LOADED, Connection
from milvus.filters import compile_filter, key_after, key_before, key_from, key_in
from milvus.pages import clamped, full_page, in_order, nearest_products
from milvus.schema import (
    HIT_FIELDS,
    MAX_CALL_BYTES,
    MAX_ID_BYTES,
    MAX_KEY_BYTES,
    check_dimension,
    check_name,
    check_vector,
    chunks,
    encode_rows,
    mark_name,
    marked_id,
)

_DEFAULT_PARAMS: dict[str, dict[str, Any]] = {"HNSW": {"M": 16, "efConstruction": 200}}
_FILTERED_SHARE = 10
"""ef of rows / 10 brings the recall of HNSW under a selective filter to 0.99 and above (measured)."""


def create_collection(
    client: MilvusClient, name: str, dimension: int, index: IndexConfig, lite: bool, timeout_s: float
) -> None:
    """Create, index and load the collection; what is already done stays as it is."""
    if not client.has_collection(name, timeout=timeout_s):
        try:
            shards = {} if lite else {"num_shards": index.shards}
            client.create_collection(name, schema=_schema(dimension), timeout=timeout_s, **shards)
        except MilvusException:
            # Another process may have been faster; whose dimension it has is checked by the caller.
            if not client.has_collection(name, timeout=timeout_s):
                raise
    if not client.list_indexes(name, timeout=timeout_s):
        try:
            client.create_index(name, _index(client, index, lite), timeout=timeout_s)
        except MilvusException:
            if not client.list_indexes(name, timeout=timeout_s):
                raise
    client.load_collection(name, timeout=timeout_s)


def create_mark(client: MilvusClient, name: str, timeout_s: float) -> None:
    """Create an empty collection that is never loaded, unless it is there."""
    if client.has_collection(name, timeout=timeout_s):
        return
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.INT64, is_primary=True)
    # A server takes no collection without vectors.
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=2)
    try:
        client.create_collection(name, schema=schema, timeout=timeout_s)
    except MilvusException:
        if not client.has_collection(name, timeout=timeout_s):
            raise


def search_parameters(index: IndexConfig, index_type: str, count: int, filtered_rows: int) -> dict[str, Any]:
    """The search parameters for `count` hits; `filtered_rows` is 0 without a filter."""
    if index.search_params or index_type != "HNSW":
        return dict(index.search_params)
    wide = min(filtered_rows // _FILTERED_SHARE, index.max_ef)
    return {"ef": max(index.min_ef, 2 * count if 2 * count <= index.max_ef else count, wide)}


def _schema(dimension: int) -> Any:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=MAX_KEY_BYTES)
    schema.add_field("image_id", DataType.VARCHAR, max_length=MAX_ID_BYTES)
    schema.add_field("revision", DataType.INT64)
    schema.add_field("product_id", DataType.VARCHAR, max_length=MAX_ID_BYTES)
    schema.add_field("attributes", DataType.JSON)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dimension)
    return schema


def _index(client: MilvusClient, index: IndexConfig, lite: bool) -> Any:
    index_type = index.index_type or ("FLAT" if lite else "HNSW")
    parameters = client.prepare_index_params()
    parameters.add_index(
        "embedding",
        index_type=index_type,
        metric_type="COSINE",
        params=index.params or _DEFAULT_PARAMS.get(index_type, {}),
    )
    return parameters


Result = TypeVar("Result")
Work = Callable[[MilvusClient, float], Result]


class MilvusCollections:
    """The part of the store that deals in whole collections."""

    def __init__(self, config: MilvusConfig) -> None:
        self._config = config
        self.address = config.uri
        self.rebuilt_if_empty = config.is_rebuilt_if_empty
        self._connection = Connection(config)
        self._facts: dict[str, tuple[int, str]] = {}
        self._lite: bool | None = None

    def marks(self) -> set[str]:
        """Read the ids of the catalogs that have marked this Milvus as theirs."""
        return {store_id for name in self._names() if (store_id := marked_id(name)) is not None}

    def set_mark(self, store_id: str) -> None:
        """Mark this Milvus as that of a catalog, by an empty collection."""
        name = mark_name(store_id)
        self._connection.call(
            lambda client, left_s: create_mark(client, name, left_s), self._config.build_timeout_s
        )

    def has_collection(self, name: str) -> bool:
        """Tell whether there is a collection of that name, or an alias."""
        check_name(name)
        return bool(self._connection.call(lambda client, left_s: client.has_collection(name, timeout=left_s)))

    def ensure_collection(self, name: str, dimension: int) -> None:
        """Create, index and load the collection unless it is there; Conflict if its dimension differs."""
        check_name(name)
        check_dimension(dimension)
        self._refuse_alias(name)
        lite = self._is_lite()

        def create(client: MilvusClient, left_s: float) -> None:
            create_collection(client, name, dimension, self._config.index, lite, left_s)

        self._connection.call(create, self._config.build_timeout_s)
        if (there := self._describe(name)[0]) != dimension:
            raise Conflict(f"{name} has dimension {there}, not {dimension}")

    def drop_collection(self, name: str) -> None:
        """Drop the collection and its aliases; Conflict when the name is an alias."""
        check_name(name)
        self._refuse_alias(name)
        self._facts.pop(name, None)
        self._connection.call(lambda client, left_s: _drop(client, name, left_s))

    def collections(self) -> list[CollectionInfo]:
        """List the collections by name, with the rows that a search finds; marks are none."""
        found = []
        for name in sorted(name for name in self._names() if marked_id(name) is None):
            try:
                dimension, index_type = self._describe(name)
                found.append(CollectionInfo(name, dimension, self._count(name) if index_type else 0))
            except NotFound:
                self._facts.pop(name, None)
        return found

    def set_alias(self, alias: str, collection: str) -> None:
        """Point the alias at the collection, wherever it pointed before."""
        check_name(alias)
        names = self._names()
        if alias in names:
            raise Conflict(f"{alias} is a collection, so it cannot be an alias")
        if collection not in names:
            raise NotFound(f"there is no collection {collection}")

        def point(client: MilvusClient, left_s: float) -> None:
            try:
                client.alter_alias(collection, alias, timeout=left_s)
            except MilvusException:
                client.create_alias(collection, alias, timeout=left_s)

        self._connection.call(point)

    def alias_target(self, alias: str) -> str | None:
        """Name the collection behind the alias."""
        check_name(alias)
        try:
            found = self._connection.call(lambda client, left_s: client.describe_alias(alias, timeout=left_s))
        except NotFound:
            return None
        return str(found["collection_name"]) or None

    def ping(self) -> None:
        """Return when Milvus answers a call that reads its collections."""
        self._names()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _names(self) -> list[str]:
        return list(self._connection.call(lambda client, left_s: client.list_collections(timeout=left_s)))

    def _refuse_alias(self, name: str) -> None:
        if self.alias_target(name) is not None:
            raise Conflict(f"{name} is an alias, not a collection")

    def _describe(self, name: str) -> tuple[int, str]:
        """The dimension and index type of a collection; the type is empty while it is being made."""
        if name in self._facts:
            return self._facts[name]
        facts = self._connection.call(lambda client, left_s: _facts(client, name, left_s))
        if facts[1]:
            self._facts[name] = facts
        return facts

    def _count(self, collection: str) -> int:
        return int(self._query(collection, "", ["count(*)"])[0]["count(*)"])

    def _query(self, collection: str, expression: str, fields: Sequence[str], **options: Any) -> list[Any]:
        settings = {"consistency_level": self._config.consistency, **options}

        def query(client: MilvusClient, left_s: float) -> list[Any]:
            found = client.query(
                collection, filter=expression, output_fields=list(fields), timeout=left_s, **settings
            )
            return list(found)

        return self._read(collection, query)

    def _read(self, collection: str, work: Work[Result]) -> Result:
        """Read, and load the collection when a restart has left it unloaded."""

        def loaded(client: MilvusClient, left_s: float) -> Result:
            try:
                return work(client, left_s)
            except MilvusException as error:
                if error.code != NOT_LOADED:
                    raise
                client.load_collection(collection, timeout=left_s)
                return work(client, left_s)

        return self._connection.call(loaded)

    def _is_lite(self) -> bool:
        if self._lite is None:
            version = self._connection.call(
                lambda client, left_s: str(client.get_server_version(timeout=left_s))
            )
            self._lite = version.startswith("milvus_lite")
        return self._lite


def _facts(client: MilvusClient, name: str, left_s: float) -> tuple[int, str]:
    fields = client.describe_collection(name, timeout=left_s)["fields"]
    made = client.list_indexes(name, timeout=left_s)
    index = client.describe_index(name, made[0], timeout=left_s) if made else {}
    dimension = next(int(field["params"]["dim"]) for field in fields if field["name"] == "embedding")
    return dimension, str(index.get("index_type", ""))


def _drop(client: MilvusClient, name: str, left_s: float) -> None:
    """Drop the aliases first: a server keeps them, pointing nowhere."""
    if not client.has_collection(name, timeout=left_s):
        return
    for alias in client.list_aliases(name, timeout=left_s)["aliases"]:
        client.drop_alias(alias, timeout=left_s)
    client.drop_collection(name, timeout=left_s)


_KEYS_A_CALL = 1000
_KEYS_A_PAGE = 10_000
_PRODUCTS_A_CALL = 1000
_ROWS_FRESH_S = 30.0
_IN_KEY_ORDER = {"iterator": "True", "reduce_stop_for_best": True}
"""What pymilvus' own iterator sends so that a page is the smallest keys, in Lite and in a server."""


class MilvusStore(MilvusCollections):
    """A `VectorStore` on the ordinary Milvus client. Thread-safe.

    Search goes to the collection that the caller names. Writes return when every reader finds them.
    """

    def __init__(self, config: MilvusConfig) -> None:
        super().__init__(config)
        self._rows: dict[str, tuple[int, float]] = {}

    def upsert(self, collection: str, rows: Sequence[VectorRow]) -> None:
        """Write rows by key, in calls far below the server's size limit; repeat the batch if one fails."""
        dimension = self._describe(collection)[0]
        encoded = encode_rows(rows, dimension)
        for chunk in chunks(encoded, dimension):
            self._upsert(collection, chunk)
        if encoded:
            self._wait_until_seen(collection)

    def delete(self, collection: str, keys: Sequence[str]) -> None:
        """Remove rows by key; missing keys are fine."""
        self._describe(collection)
        for part in batched(keys, _KEYS_A_CALL):
            self._delete(collection, key_in(part))
        if keys:
            self._wait_until_seen(collection)

    def fetch(self, collection: str, keys: Sequence[str]) -> dict[str, Vector]:
        """Read vectors by row key; missing keys are left out."""
        dimension = self._describe(collection)[0]
        found: dict[str, Vector] = {}
        for part in batched(keys, min(_KEYS_A_CALL, max(1, MAX_CALL_BYTES // (dimension * 4)))):
            rows = self._query(collection, key_in(part), ["key", "embedding"])
            found |= {row["key"]: np.asarray(row["embedding"], dtype=np.float32) for row in rows}
        return found

    def keys(self, collection: str, first: str = "", beyond: str | None = None) -> Iterator[str]:
        """Walk the row keys with `first <= key < beyond`, by default all, a page a call."""
        self._describe(collection)
        below = "" if beyond is None else f" and {key_before(beyond)}"
        where = key_from(first)
        while page := self._first_keys(collection, where + below):
            yield from page
            where = key_after(page[-1])

    def search_products(
        self,
        collection: str,
        vector: Vector,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
    ) -> list[Hit]:
        """Find the `limit` nearest distinct products, each by its best image."""
        dimension, index_type = self._describe(collection)
        query = check_vector(vector, dimension)

        def search(count: int, excluded: Sequence[str]) -> list[Hit]:
            return self._search(collection, query, count, compile_filter(filter, excluded))

        return full_page(search, limit, exclude_products, exact=index_type in EXACT_INDEXES)

    def score_products(
        self, collection: str, vector: Vector, products: Sequence[str], filter: Filter | None = None
    ) -> list[Hit]:
        """Score these products, each by its best image; those that the collection lacks are left out."""
        dimension, index_type = self._describe(collection)
        query = check_vector(vector, dimension)
        hits: list[Hit] = []
        for part in batched(list(dict.fromkeys(products)), _PRODUCTS_A_CALL):

            def search(count: int, found: Sequence[str], part: Sequence[str] = part) -> list[Hit]:
                known = set(found)
                left = [product_id for product_id in part if product_id not in known]
                if not left:
                    return []
                return self._search(collection, query, count, compile_filter(filter, only_products=left))

            hits += nearest_products(search, len(part), exact=index_type in EXACT_INDEXES)
        return in_order(hits)

    def _search(self, collection: str, query: Vector, count: int, expression: str) -> list[Hit]:
        index_type = self._describe(collection)[1]
        filtered_rows = self._recent_rows(collection) if expression and index_type == "HNSW" else 0
        parameters = search_parameters(self._config.index, index_type, count, filtered_rows)

        def search(client: MilvusClient, left_s: float) -> Any:
            return client.search(
                collection,
                [query],
                filter=expression,
                limit=count,
                output_fields=HIT_FIELDS,
                search_params={"metric_type": "COSINE", "params": parameters},
                consistency_level=self._config.consistency,
                timeout=left_s,
            )

        return [_hit(hit) for hit in self._read(collection, search)[0]]

    def _upsert(self, collection: str, rows: list[dict[str, Any]]) -> None:
        self._connection.call(lambda client, left_s: client.upsert(collection, rows, timeout=left_s))

    def _delete(self, collection: str, expression: str) -> None:
        self._connection.call(
            lambda client, left_s: client.delete(collection, filter=expression, timeout=left_s)
        )

    def _first_keys(self, collection: str, expression: str) -> list[str]:
        """The first keys in order; pages by a cursor survive a lost connection, an iterator does not."""
        rows = self._query(collection, expression, ["key"], limit=_KEYS_A_PAGE, **_IN_KEY_ORDER)
        return sorted(row["key"] for row in rows)

    def _recent_rows(self, collection: str) -> int:
        rows, counted_at = self._rows.get(collection, (0, float("-inf")))
        if time.monotonic() - counted_at > _ROWS_FRESH_S:
            rows = self._count(collection)
            self._rows[collection] = rows, time.monotonic()
        return rows

    def _wait_until_seen(self, collection: str) -> None:
        """Let a Strong read pass behind the write, so that readers elsewhere find it too."""
        if not self._is_lite():
            self._query(collection, key_in(["-"]), ["key"], consistency_level="Strong", limit=1)


def _hit(hit: Any) -> Hit:
    entity = hit["entity"]
    return Hit(entity["image_id"], int(entity["revision"]), entity["product_id"], clamped(hit["distance"]))
