"""The in-memory store for unit tests: the checks of the Milvus store, and exact search in numpy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock

import numpy as np

from core.errors import Conflict, InvalidInput, NotFound
from core.filters import Filter, Kind, matches
from core.types import Attributes, CollectionInfo, Hit, Vector, VectorRow
from milvus.pages import best_images, clamped, in_order
from milvus.schema import check_dimension, check_name, check_vector, encode_attributes, encode_rows, mark_name


@dataclass
class _Collection:
    dimension: int
    declared: Mapping[str, Kind]
    rows: dict[str, VectorRow] = field(default_factory=dict)


class MemoryStore:
    """A `core.ports.VectorStore`, which documents its methods, for the life of its process."""

    address = "memory"

    def __init__(self, rebuilt_if_empty: bool = True, declared: Mapping[str, Kind] | None = None) -> None:
        self.rebuilt_if_empty = rebuilt_if_empty
        self._declared = declared or {}
        self._marks: set[str] = set()
        self._collections: dict[str, _Collection] = {}
        self._aliases: dict[str, str] = {}
        self._lock = RLock()

    def marks(self) -> set[str]:
        with self._lock:
            return set(self._marks)

    def set_mark(self, store_id: str) -> None:
        mark_name(store_id)
        with self._lock:
            self._marks.add(store_id)

    def has_collection(self, name: str) -> bool:
        check_name(name)
        with self._lock:
            return name in self._collections or name in self._aliases

    def ensure_collection(self, name: str, dimension: int) -> None:
        check_name(name)
        check_dimension(dimension)
        with self._lock:
            if name in self._aliases:
                raise Conflict(f"{name} is an alias, not a collection")
            there = self._collections.setdefault(name, _Collection(dimension, self._declared))
            if there.dimension != dimension:
                raise Conflict(f"{name} has dimension {there.dimension}, not {dimension}")

    def drop_collection(self, name: str) -> None:
        check_name(name)
        with self._lock:
            if name in self._aliases:
                raise Conflict(f"{name} is an alias, not a collection")
            self._collections.pop(name, None)
            self._aliases = {alias: to for alias, to in self._aliases.items() if to != name}

    def collections(self) -> list[CollectionInfo]:
        with self._lock:
            return [
                CollectionInfo(name, found.dimension, len(found.rows))
                for name, found in sorted(self._collections.items())
            ]

    def set_alias(self, alias: str, collection: str) -> None:
        check_name(alias)
        with self._lock:
            if alias in self._collections:
                raise Conflict(f"{alias} is a collection, so it cannot be an alias")
            if collection not in self._collections:
                raise NotFound(f"there is no collection {collection}")
            self._aliases[alias] = collection

    def alias_target(self, alias: str) -> str | None:
        with self._lock:
            return self._aliases.get(check_name(alias))

    def check_attributes(self, attributes: Attributes) -> None:
        encode_attributes(attributes, self._declared)

    def upsert(self, collection: str, rows: Sequence[VectorRow]) -> None:
        with self._lock:
            found = self._find(collection)
            encoded = encode_rows(rows, found.dimension, found.declared)
            for row, stored in zip(rows, encoded, strict=True):
                found.rows[row.item.key] = VectorRow(row.item, stored["embedding"].copy())

    def delete(self, collection: str, keys: Sequence[str]) -> None:
        with self._lock:
            found = self._find(collection)
            for key in keys:
                found.rows.pop(key, None)

    def fetch(self, collection: str, keys: Sequence[str]) -> dict[str, Vector]:
        with self._lock:
            rows = self._find(collection).rows
            return {key: rows[key].vector.copy() for key in keys if key in rows}

    def keys(self, collection: str, first: str = "", beyond: str | None = None) -> Iterator[str]:
        with self._lock:
            keys = sorted(self._find(collection).rows)
        return iter([key for key in keys if first <= key and (beyond is None or key < beyond)])

    def search_products(
        self,
        collection: str,
        vector: Vector,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
    ) -> list[Hit]:
        if limit < 1:
            raise InvalidInput(f"the limit {limit} is not positive").at("limit")
        excluded = set(exclude_products)
        return self._best(collection, vector, filter, lambda product_id: product_id not in excluded)[:limit]

    def score_products(
        self, collection: str, vector: Vector, products: Sequence[str], filter: Filter | None = None
    ) -> list[Hit]:
        return self._best(collection, vector, filter, set(products).__contains__)

    def ping(self) -> None:
        """Return at once: memory always answers."""

    def _best(
        self, collection: str, vector: Vector, filter: Filter | None, takes: Callable[[str], bool]
    ) -> list[Hit]:
        with self._lock:
            found = self._find(collection)
            query = check_vector(vector, found.dimension).astype(np.float64)
            rows = [
                row
                for row in found.rows.values()
                if takes(row.item.product_id) and (filter is None or matches(filter, row.item.attributes))
            ]
        matrix = np.array([row.vector for row in rows], np.float64).reshape(len(rows), len(query))
        scores = matrix @ query / (np.linalg.norm(matrix, axis=1) * np.linalg.norm(query))
        hits = [
            Hit(row.item.image_id, row.item.revision, row.item.product_id, clamped(float(score)))
            for row, score in zip(rows, scores, strict=True)
        ]
        return in_order(best_images(hits).values())

    def _find(self, name: str) -> _Collection:
        found = self._collections.get(self._aliases.get(name, name))
        if found is None:
            raise NotFound(f"there is no collection {name}")
        return found
