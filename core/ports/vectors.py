"""Where vectors are kept and searched."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from core.filters import Filter
from core.types import CollectionInfo, Hit, Vector, VectorRow


class VectorStore(Protocol):
    """Collections of vectors. All calls block; all are safe to repeat and to call from several threads.

    Every method may raise StoreUnavailable; those that name a missing collection raise NotFound.
    """

    address: str
    """Where it is, for logs."""
    rebuilt_if_empty: bool
    """Whether an empty store is one whose data was deleted, which is filled anew without asking."""

    def marks(self) -> set[str]:
        """Read the ids of the catalogs that have marked this store as theirs."""
        ...

    def set_mark(self, store_id: str) -> None:
        """Mark this store, durably, as that of the catalog with this id of 32 hex digits; others' marks stay."""
        ...

    def has_collection(self, name: str) -> bool:
        """Tell whether there is a collection of that name, or an alias."""
        ...

    def ensure_collection(self, name: str, dimension: int) -> None:
        """Create, index and load the collection unless it is there; Conflict if its dimension differs."""
        ...

    def drop_collection(self, name: str) -> None:
        """Drop the collection and the aliases that point at it; nothing happens when it is missing."""
        ...

    def collections(self) -> list[CollectionInfo]:
        """List the collections by name; marks are none."""
        ...

    def set_alias(self, alias: str, collection: str) -> None:
        """Point the alias at the collection, wherever it pointed before."""
        ...

    def alias_target(self, alias: str) -> str | None:
        """Name the collection behind the alias."""
        ...

    def upsert(self, collection: str, rows: Sequence[VectorRow]) -> None:
        """Write rows by key; returns when they are durable and found by the next search."""
        ...

    def delete(self, collection: str, keys: Sequence[str]) -> None:
        """Remove rows by key; missing keys are fine."""
        ...

    def fetch(self, collection: str, keys: Sequence[str]) -> dict[str, Vector]:
        """Read vectors by row key; missing keys are left out."""
        ...

    def keys(self, collection: str, first: str = "", beyond: str | None = None) -> Iterator[str]:
        """Walk the row keys with `first <= key < beyond` in their order, by default all."""
        ...

    def search_products(
        self,
        collection: str,
        vector: Vector,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
    ) -> list[Hit]:
        """Find the `limit` nearest distinct products, each by its best picture.

        `vector` is float32 (dimension,), not necessarily normalised; scores are cosine similarities,
        best first, each product once. Scores within `SCORE_TOLERANCE` tie: they are given as the best of
        them, and ties go by product id, at any limit. So a larger limit finds the same products in the
        same order and continues it, but for products whose scores differ by very nearly the tolerance:
        these may change places. Fewer hits come back only when the collection, under the
        filter and without the excluded products, holds fewer distinct products.
        """
        ...

    def score_products(
        self, collection: str, vector: Vector, products: Sequence[str], filter: Filter | None = None
    ) -> list[Hit]:
        """Score these products, each by its best picture under the filter, as `search_products` does.

        Products without a picture in the collection, or that do not pass the filter, are left out.
        """
        ...

    def ping(self) -> None:
        """Return when the store answers."""
        ...
