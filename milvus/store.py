"""The vector store on Milvus: a server, a cluster, or the owner process of a Milvus Lite folder."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pymilvus import MilvusClient

from core.filters import Filter
from core.portions import parts
from core.types import Hit, Vector, VectorRow
from milvus.administration import MilvusCollections
from milvus.config import EXACT_INDEXES, MilvusConfig
from milvus.creation import search_parameters
from milvus.filters import compile_filter, key_after, key_before, key_from, key_in
from milvus.pages import clamped, full_page, in_order, nearest_products
from milvus.schema import HIT_FIELDS, MAX_CALL_BYTES, check_vector, chunks, encode_rows

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
        for part in parts(keys, _KEYS_A_CALL):
            self._delete(collection, key_in(part))
        if keys:
            self._wait_until_seen(collection)

    def fetch(self, collection: str, keys: Sequence[str]) -> dict[str, Vector]:
        """Read vectors by row key; missing keys are left out."""
        dimension = self._describe(collection)[0]
        found: dict[str, Vector] = {}
        for part in parts(keys, min(_KEYS_A_CALL, max(1, MAX_CALL_BYTES // (dimension * 4)))):
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
        """Find the `limit` nearest distinct products, each by its best picture."""
        dimension, index_type = self._describe(collection)
        query = check_vector(vector, dimension)

        def search(count: int, excluded: Sequence[str]) -> list[Hit]:
            return self._search(collection, query, count, compile_filter(filter, excluded))

        return full_page(search, limit, exclude_products, exact=index_type in EXACT_INDEXES)

    def score_products(
        self, collection: str, vector: Vector, products: Sequence[str], filter: Filter | None = None
    ) -> list[Hit]:
        """Score these products, each by its best picture; those that the collection lacks are left out."""
        dimension, index_type = self._describe(collection)
        query = check_vector(vector, dimension)
        hits: list[Hit] = []
        for part in parts(list(dict.fromkeys(products)), _PRODUCTS_A_CALL):

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
