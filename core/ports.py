"""What the pure rooms ask of the others, as Protocols; fakes and real things implement them alike."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from core.errors import VitrineError
from core.filters import Filter
from core.types import (
    Attributes,
    CollectionInfo,
    Encoded,
    EncoderInfo,
    EncoderInput,
    Hit,
    IndexItem,
    LedgerCounts,
    NewPicture,
    Picture,
    Product,
    Vector,
    VectorRow,
)


class EncoderClient(Protocol):
    """An encoder, near or behind a Serve handle."""

    name: str

    async def describe(self) -> EncoderInfo:
        """Say which version serves.

        Raises:
            ModelUnavailable: no replica answers.
        """
        ...

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed pictures and words; each input succeeds or fails alone.

        Raises:
            ModelUnavailable: no replica answers.
            DeadlineExceeded: the encoder took too long.
        """
        ...


class VectorStore(Protocol):
    """Collections of vectors. All calls block; all are safe to repeat and to call from several threads.

    Every method may raise StoreUnavailable; those that name a missing collection raise NotFound.
    """

    def ensure_collection(self, name: str, dimension: int) -> None:
        """Create, index and load the collection unless it is there; Conflict if its dimension differs."""
        ...

    def drop_collection(self, name: str) -> None:
        """Drop the collection and the aliases that point at it; nothing happens when it is missing."""
        ...

    def collections(self) -> list[CollectionInfo]:
        """List the collections by name."""
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

    def keys(self, collection: str) -> Iterator[str]:
        """Walk all row keys of the collection."""
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
        best first, ties by product id. Fewer hits come back only when the collection, under the
        filter and without the excluded products, holds fewer distinct products.
        """
        ...

    def ping(self) -> None:
        """Return when the store answers."""
        ...


class Blobs(Protocol):
    """Picture files by the sha256 of their bytes. Blocking; safe to call from several threads."""

    def put(self, data: bytes) -> str:
        """Store durably and return the lower-case hex sha256; storing the same bytes again is free."""
        ...

    def get(self, sha256: str) -> bytes:
        """Read back; NotFound when missing."""
        ...


class Products(Protocol):
    """The catalog's products. Blocking; safe to call from several threads and processes."""

    def put(
        self,
        product_id: str,
        title: str,
        description: str,
        attributes: Attributes,
        pictures: Sequence[NewPicture] | None,
    ) -> tuple[Product, bool]:
        """Create or replace a product durably; returns it and whether it is new.

        `pictures=None` keeps the pictures it has. A picture that stays keeps its image id; its revision
        changes only when its place in the product, the attributes or its bytes change, so that a
        repeated identical put costs no new embedding.
        """
        ...

    def get(self, product_id: str) -> Product:
        """Read one product; NotFound when missing."""
        ...

    def get_many(self, product_ids: Sequence[str]) -> dict[str, Product]:
        """Read those of the products that exist."""
        ...

    def page(self, limit: int, after: str | None = None) -> list[Product]:
        """Read products ordered by id, those with an id greater than `after`."""
        ...

    def delete(self, product_id: str) -> None:
        """Remove a product and its pictures durably; NotFound when missing."""
        ...

    def picture(self, image_id: str) -> Picture:
        """Read one picture; NotFound when missing."""
        ...

    def counts(self) -> tuple[int, int]:
        """Count products and pictures."""
        ...


class Ledger(Protocol):
    """Which picture, at which revision, is in which collection. Blocking; safe from anywhere.

    A row is opened before the vector is written and settled after it, so every vector that may exist
    in Milvus has a row here; one anti-join against the pictures finds all that is missing or obsolete.
    """

    def register(self, info: EncoderInfo) -> None:
        """Remember a model version, so that its collection is counted and cleaned."""
        ...

    def versions(self) -> list[EncoderInfo]:
        """List all registered model versions, oldest first."""
        ...

    def missing(self, collection: str, limit: int, grace_s: float = 0.0) -> list[IndexItem]:
        """Pictures whose current revision has no settled row, except those opened within `grace_s`."""
        ...

    def items(self, product_id: str) -> list[IndexItem]:
        """The pictures of one product as they should be indexed; empty when the product is missing."""
        ...

    def open(self, collection: str, items: Sequence[IndexItem]) -> None:
        """Announce that these rows are about to be written."""
        ...

    def settle(self, collection: str, items: Sequence[IndexItem]) -> list[IndexItem]:
        """Record that these rows are in; returns those whose open row has vanished (obsolete meanwhile)."""
        ...

    def fail(self, collection: str, errors: Sequence[tuple[IndexItem, VitrineError]]) -> None:
        """Put these pictures into quarantine with their errors."""
        ...

    def retry(self, collection: str) -> int:
        """Take all pictures of the collection out of quarantine, so that they are missing; counts them."""
        ...

    def obsolete(self, collection: str, limit: int, grace_s: float = 0.0) -> list[str]:
        """Row keys whose picture is gone or has a newer revision, except rows opened within `grace_s`."""
        ...

    def forget(self, collection: str, keys: Sequence[str]) -> None:
        """Drop ledger rows by row key, after their vectors have been deleted."""
        ...

    def reset(self, collection: str) -> None:
        """Drop all rows of a collection that Milvus does not hold any more."""
        ...

    def indexed(self, collection: str, keys: Sequence[str]) -> set[str]:
        """Of these row keys, those that are settled without an error."""
        ...

    def counts(self, collection: str) -> LedgerCounts:
        """Count pictures, indexed, failed and missing for one collection."""
        ...
