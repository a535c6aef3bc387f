"""Vector store on Milvus: collections, aliases, rows and searches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from pymilvus import MilvusClient, MilvusException

from core.concurrency import batched, batched_by_bytes
from core.errors import Conflict, NotFound
from core.filters import Filter
from core.types import Attributes, CollectionInfo, Hit, Vector, VectorRow
from milvus.collections import (
    CollectionFacts,
    create_collection,
    create_mark,
    drop_collection,
    point_alias,
    read_facts,
)
from milvus.config import EXACT_INDEXES, MilvusConfig
from milvus.connection import NOT_LOADED, Connection
from milvus.filters import Shares, compile_filter, halves, key_in, keys_between, width
from milvus.pages import best_images, clamped, full_page, in_order, nearest_products
from milvus.schema import (
    HIT_FIELDS,
    MAX_CALL_BYTES,
    check_dimension,
    check_name,
    check_vector,
    encode_attributes,
    encode_rows,
    mark_name,
    marked_id,
    row_bytes,
)

KEYS_A_CALL = 1000
_KEYS_A_PAGE = 10_000
_PRODUCTS_A_CALL = 1000
_IMAGES_A_PRODUCT = 64
"""Images of a product that a call for vectors reckons with, on average."""
_IN_KEY_ORDER = {"iterator": "True", "reduce_stop_for_best": True}
"""Options that pymilvus's own iterator sends, so that a page is the smallest keys, in Lite and in a server."""


class MilvusStore:
    """A `core.ports.VectorStore`, which documents its methods, on the ordinary Milvus client. Thread-safe.

    Search goes to the collection that the caller names. Writes return when every reader finds them.
    """

    def __init__(self, config: MilvusConfig) -> None:
        self._config = config
        self.address = config.uri
        self.rebuilt_if_empty = config.is_rebuilt_if_empty
        self._connection = Connection(config)
        self._attribute_kinds = config.attribute_kinds
        self._facts: dict[str, CollectionFacts] = {}
        self._shares = Shares(self._count_roughly)
        self._lite: bool | None = None

    def marks(self) -> set[str]:
        return {store_id for name in self._names() if (store_id := marked_id(name)) is not None}

    def set_mark(self, store_id: str) -> None:
        self._connection.run(create_mark, mark_name(store_id), timeout_s=self._config.build_timeout_s)

    def has_collection(self, name: str) -> bool:
        return bool(self._connection.run(MilvusClient.has_collection, check_name(name)))

    def ensure_collection(self, name: str, dimension: int) -> None:
        check_name(name)
        check_dimension(dimension)
        self._refuse_alias(name)
        made = (name, dimension, self._config.index, self._attribute_kinds, self._is_lite())
        self._connection.run(create_collection, *made, timeout_s=self._config.build_timeout_s)
        if (there := self._describe(name).dimension) != dimension:
            raise Conflict(f"{name} has dimension {there}, not {dimension}")

    def drop_collection(self, name: str) -> None:
        check_name(name)
        self._refuse_alias(name)
        self._facts.pop(name, None)
        self._connection.run(drop_collection, name)

    def collections(self) -> list[CollectionInfo]:
        found = []
        for name in sorted(name for name in self._names() if marked_id(name) is None):
            try:
                facts = self._describe(name)
                rows = self._count(name) if facts.index_type else 0
                found.append(CollectionInfo(name, facts.dimension, rows))
            except NotFound:
                self._facts.pop(name, None)
        return found

    def set_alias(self, alias: str, collection: str) -> None:
        check_name(alias)
        names = self._names()
        if alias in names:
            raise Conflict(f"{alias} is a collection, so it cannot be an alias")
        if collection not in names:
            raise NotFound(f"there is no collection {collection}")
        self._connection.run(point_alias, alias, collection)

    def alias_target(self, alias: str) -> str | None:
        try:
            found = self._connection.run(MilvusClient.describe_alias, check_name(alias))
        except NotFound:
            return None
        return str(found["collection_name"]) or None

    def ping(self) -> None:
        self._names()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _names(self) -> list[str]:
        return list(self._connection.run(MilvusClient.list_collections))

    def _refuse_alias(self, name: str) -> None:
        if self.alias_target(name) is not None:
            raise Conflict(f"{name} is an alias, not a collection")

    def _describe(self, name: str) -> CollectionFacts:
        if name in self._facts:
            return self._facts[name]
        facts: CollectionFacts = self._connection.run(read_facts, name)
        if facts.index_type:
            self._facts[name] = facts
        return facts

    def _count(self, collection: str, expression: str = "", **options: Any) -> int:
        return int(self._query(collection, expression, ["count(*)"], **options)[0]["count(*)"])

    def _count_roughly(self, collection: str, expression: str, timeout_s: float) -> int:
        """Count rows without waiting for those that were just written."""
        return self._count(collection, expression, consistency_level="Eventually", timeout_s=timeout_s)

    def _query(self, collection: str, expression: str, fields: Sequence[str], **options: Any) -> list[Any]:
        settings = {"consistency_level": self._config.consistency, "output_fields": list(fields), **options}
        return list(self._read(MilvusClient.query, collection, filter=expression, **settings))

    def _read(
        self,
        method: Callable[..., Any],
        collection: str,
        *args: Any,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Any:
        """Call a method that reads, and load the collection when a restart has left it unloaded."""

        def read(client: MilvusClient, timeout: float) -> Any:
            try:
                return method(client, collection, *args, timeout=timeout, **options)
            except MilvusException as error:
                if error.code != NOT_LOADED:
                    raise
                client.load_collection(collection, timeout=timeout)
                return method(client, collection, *args, timeout=timeout, **options)

        return self._connection.run(read, timeout_s=timeout_s)

    def _is_lite(self) -> bool:
        if self._lite is None:
            version = self._connection.run(MilvusClient.get_server_version)
            self._lite = str(version).startswith("milvus_lite")
        return self._lite

    def check_attributes(self, attributes: Attributes) -> None:
        encode_attributes(attributes, self._attribute_kinds)

    def upsert(self, collection: str, rows: Sequence[VectorRow]) -> None:
        facts = self._describe(collection)
        self._upsert(collection, encode_rows(rows, facts.dimension, facts.declared))

    def delete(self, collection: str, keys: Sequence[str]) -> None:
        self._describe(collection)
        for some in batched(keys, KEYS_A_CALL):
            self._connection.run(MilvusClient.delete, collection, filter=key_in(some))
        if keys:
            self._wait_until_seen(collection)

    def fetch(self, collection: str, keys: Sequence[str]) -> dict[str, Vector]:
        dimension = self._describe(collection).dimension
        found: dict[str, Vector] = {}
        for some in batched(keys, min(KEYS_A_CALL, max(1, MAX_CALL_BYTES // (dimension * 4)))):
            rows = self._query(collection, key_in(some), ["key", "embedding"])
            found |= {row["key"]: np.asarray(row["embedding"], dtype=np.float32) for row in rows}
        return found

    def keys(self, collection: str, first: str = "", beyond: str | None = None) -> Iterator[str]:
        self._describe(collection)
        where = keys_between(first, beyond)
        # Pages by a cursor survive a lost connection, an iterator of pymilvus does not.
        while page := self._query(collection, where, ["key"], limit=_KEYS_A_PAGE, **_IN_KEY_ORDER):
            keys = sorted(row["key"] for row in page)
            yield from keys
            where = keys_between(keys[-1], beyond, after=True)

    def search_products(
        self,
        collection: str,
        vector: Vector,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
    ) -> list[Hit]:
        facts = self._describe(collection)
        query = check_vector(vector, facts.dimension)

        share = self._share(collection, facts, filter)

        def search(count: int, excluded: Sequence[str]) -> list[Hit]:
            expression = compile_filter(filter, excluded, None, facts.declared)
            return self._search(collection, query, count, expression, share)

        return full_page(search, limit, exclude_products, exact=facts.index_type in EXACT_INDEXES)

    def score_products(
        self, collection: str, vector: Vector, products: Sequence[str], filter: Filter | None = None
    ) -> list[Hit]:
        facts = self._describe(collection)
        query = check_vector(vector, facts.dimension)
        distinct = list(dict.fromkeys(products))
        if facts.index_type not in EXACT_INDEXES:
            return in_order(self._scores_by_vectors(collection, query, distinct, filter))
        hits: list[Hit] = []
        for some in batched(distinct, _PRODUCTS_A_CALL):

            def search(count: int, found: Sequence[str], some: Sequence[str] = some) -> list[Hit]:
                left = sorted(set(some).difference(found))
                expression = compile_filter(filter, (), left, facts.declared)
                return self._search(collection, query, count, expression) if left else []

            hits += nearest_products(search, len(some), exact=True)
        return in_order(hits)

    def _scores_by_vectors(
        self, collection: str, query: Vector, products: Sequence[str], filter: Filter | None
    ) -> list[Hit]:
        """Score products by their stored vectors: an approximate index may miss images of a few products."""
        hits: list[Hit] = []
        direction = query / np.linalg.norm(query)
        for some in batched(products, max(1, MAX_CALL_BYTES // (len(query) * 4 * _IMAGES_A_PRODUCT))):
            expression = compile_filter(filter, (), some, self._describe(collection).declared)
            for row in self._query(collection, expression, [*HIT_FIELDS, "embedding"]):
                stored = np.asarray(row["embedding"], dtype=np.float32)
                score = clamped(float(stored @ direction / np.linalg.norm(stored)))
                hits.append(Hit(row["image_id"], int(row["revision"]), row["product_id"], score))
        return list(best_images(hits).values())

    def _share(self, collection: str, facts: CollectionFacts, filter: Filter | None) -> float:
        """Return the share of rows that a search in a graph meets; 1 for all, and where no graph is searched."""
        if facts.index_type != "HNSW" or self._config.index.search_params:
            return 1.0
        return self._shares.of(collection, compile_filter(filter, declared=facts.declared))

    def _search(
        self, collection: str, query: Vector, count: int, expression: str, share: float = 1.0
    ) -> list[Hit]:
        facts, parameters = self._describe(collection), dict(self._config.index.search_params)
        if not parameters and facts.index_type == "HNSW":
            parameters = {"ef": width(share, count, self._config.index)}
        hits = [
            _hit(hit)
            for part in (halves(expression, share) if facts.declared else [expression])
            for hit in self._read(
                MilvusClient.search,
                collection,
                [query],
                filter=part,
                limit=count,
                output_fields=HIT_FIELDS,
                search_params={"metric_type": "COSINE", "params": parameters},
                consistency_level=self._config.consistency,
            )[0]
        ]
        return sorted(hits, key=lambda hit: -hit.score)[:count]

    def _upsert(self, collection: str, rows: Sequence[dict[str, Any]]) -> None:
        for batch in batched_by_bytes(rows, row_bytes):
            self._connection.run(MilvusClient.upsert, collection, batch)
        if rows:
            self._wait_until_seen(collection)

    def _wait_until_seen(self, collection: str) -> None:
        """Let a Strong read pass behind the write, so that readers elsewhere find it too."""
        if not self._is_lite():
            self._query(collection, key_in(["-"]), ["key"], consistency_level="Strong", limit=1)


def _hit(hit: Any) -> Hit:
    entity = hit["entity"]
    return Hit(entity["image_id"], int(entity["revision"]), entity["product_id"], clamped(hit["distance"]))
