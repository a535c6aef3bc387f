"""Protocols that core asks of the other layers: catalog, ledger, vector store, keyword index and encoders."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from core.errors import VitrineError
from core.filters import Filter
from core.types import (
    Attributes,
    Caption,
    CaptionCounts,
    Captioned,
    CollectionInfo,
    Encoded,
    EncoderInfo,
    EncoderInput,
    Hit,
    IndexItem,
    LedgerCounts,
    NewImage,
    Product,
    ProductImage,
    Removal,
    Vector,
    VectorRow,
)


class Blobs(Protocol):
    """Image files by the sha256 of their bytes. Blocking; safe to call from several threads."""

    def put(self, data: bytes) -> str:
        """Store durably and return the lower-case hex sha256; storing the same bytes again is free."""
        ...

    def get(self, sha256: str) -> bytes:
        """Read back; NotFound when missing."""
        ...

    def size(self, sha256: str) -> int | None:
        """Tell how many bytes a file has now; None when missing."""
        ...


class Captions(Protocol):
    """What models have written about images: one row an image and model. Blocking; safe from anywhere.

    An image's bytes never change under its id, so a caption is out of date only when other weights or
    settings write captions under the model's name, which is what `fingerprint` tells.
    """

    def missing(self, model: str, fingerprint: str, limit: int) -> list[ProductImage]:
        """Images that this version has neither captioned nor failed on, oldest revision first."""
        ...

    def put(self, model: str, fingerprint: str, captions: Sequence[tuple[str, str]]) -> None:
        """Store captions durably, each after its image id, in the place of the model's former ones."""
        ...

    def fail(self, model: str, fingerprint: str, errors: Sequence[tuple[str, VitrineError]]) -> None:
        """Put these images, by image id, into quarantine for this version; a former caption stays."""
        ...

    def quarantined(self, model: str, limit: int) -> tuple[int, dict[str, str]]:
        """Count the images that the model has failed on; with the products of the first by image id."""
        ...

    def retry(self, model: str) -> int:
        """Take all images of the model out of quarantine, so that they are missing; counts them."""
        ...

    def retry_bugs(self, model: str) -> int:
        """Take out of quarantine what met a bug of another release of Vitrine; counts them."""
        ...

    def of(self, image_ids: Sequence[str]) -> dict[str, list[Caption]]:
        """The captions of these images by image id, newest first; images without one are left out."""
        ...

    def counts(self, model: str, fingerprint: str) -> CaptionCounts:
        """Count images, and those that this version has captioned, failed on and not seen yet."""
        ...

    def forget_gone(self) -> int:
        """Drop the rows of images that the catalog does not hold any more; counts them."""
        ...


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
        """Embed images and words; each input succeeds or fails alone.

        Raises:
            ModelUnavailable: no replica answers.
            DeadlineExceeded: the encoder took too long.
        """
        ...

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        """Describe image files in words; each succeeds or fails alone.

        Raises:
            UnsupportedModality: the encoder writes no captions.
            ModelUnavailable: no replica answers.
            DeadlineExceeded: the encoder took too long.
        """
        ...


class Ledger(Protocol):
    """Which image, at which revision, is in which collection. Blocking; safe from anywhere.

    A row is opened before the vector is written and settled after it, so every vector that may exist
    in Milvus has a row here; one anti-join against the images finds all that is missing or obsolete.
    """

    def register(self, info: EncoderInfo) -> None:
        """Remember a model version, so that its collection is counted and cleaned."""
        ...

    def versions(self) -> list[EncoderInfo]:
        """List all registered model versions, oldest first."""
        ...

    def missing(self, collection: str, limit: int, grace_s: float = 0.0) -> list[IndexItem]:
        """Images whose current revision has no settled row, except those opened within `grace_s`."""
        ...

    def missing_between(
        self, collection: str, first: str, beyond: str, limit: int, grace_s: float = 0.0
    ) -> list[IndexItem]:
        """What is missing of the images with `first <= image id < beyond`, in the order of their ids."""
        ...

    def items(self, product_id: str) -> list[IndexItem]:
        """The images of one product as they should be indexed; empty when the product is missing."""
        ...

    def open(self, collection: str, items: Sequence[IndexItem]) -> None:
        """Announce that these rows are about to be written."""
        ...

    def settle(self, collection: str, items: Sequence[IndexItem]) -> list[IndexItem]:
        """Record that these rows are in; returns those that became obsolete meanwhile, or whose row vanished."""
        ...

    def fail(self, collection: str, errors: Sequence[tuple[IndexItem, VitrineError]]) -> None:
        """Put these images into quarantine with their errors."""
        ...

    def retry(self, collection: str) -> int:
        """Take all images of the collection out of quarantine, so that they are missing; counts them."""
        ...

    def retry_bugs(self, collection: str) -> int:
        """Take out of quarantine what met a bug of another release of Vitrine; returns how many."""
        ...

    def obsolete(self, collection: str, limit: int, grace_s: float = 0.0) -> list[str]:
        """Row keys whose image is gone or has a newer revision, except rows opened within `grace_s`."""
        ...

    def obsolete_between(
        self, collection: str, first: str, beyond: str, limit: int, grace_s: float = 0.0
    ) -> list[str]:
        """What is obsolete of the rows with `first <= image id < beyond`."""
        ...

    def begin_removal(self, collection: str, keys: Sequence[str], grace_s: float) -> Removal:
        """Open these rows; returns those whose vectors may be deleted.

        A current image's is not among them: its row becomes missing. Nor are those that somebody else opened
        within `grace_s`.
        """
        ...

    def end_removal(self, collection: str, removal: Removal) -> None:
        """Drop the rows whose vectors were deleted, but those that somebody has touched since it began."""
        ...

    def reset(self, collection: str) -> None:
        """Open all rows of a collection that Milvus does not hold any more, or perhaps does not hold."""
        ...

    def store_id(self) -> str | None:
        """Read the id that marks the store which the ledger speaks of; None while it speaks of none."""
        ...

    def make_store_id(self) -> str:
        """Read the id of the store, made now where there is none; callers at once get the same."""
        ...

    def has_settled(self) -> bool:
        """Tell whether any row of any collection is settled."""
        ...

    def forget_store(self, store_id: str | None) -> None:
        """Forget the store and open all rows, unless the id is another than this one meanwhile."""
        ...

    def indexed(self, collection: str, keys: Sequence[str]) -> set[str]:
        """Of these row keys, those that are settled without an error."""
        ...

    def settled(self, collection: str, image_ids: Sequence[str]) -> dict[str, str]:
        """Of these images, by image id, the key of the newest row that is settled, at whatever revision."""
        ...

    def counts(self, collection: str) -> LedgerCounts:
        """Count images, indexed, failed and missing for one collection."""
        ...


class KeywordIndex(Protocol):
    """Full-text search over what is written about products. Blocking; safe to call from anywhere.

    Products are found by the words of their id, title, attributes, description and captions, from the
    moment that these are stored. Every method may raise Unavailable.
    """

    def search(
        self,
        text: str,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
        every_word: bool = True,
        timeout_s: float | None = None,
    ) -> list[Hit]:
        """Find the `limit` products with images that fit best, each by its first image.

        A product fits when it holds every one of the words, or with `every_word=False` at least one.
        `words` may be any text. Best first, ties by product id; scores are comparable within one answer
        only. Fewer hits come back only when fewer products fit, under the filter and without the
        excluded ones.

        Raises:
            DeadlineExceeded: it took longer than `timeout_s`, and has stopped.
        """
        ...


class Products(Protocol):
    """The catalog's products. Blocking; safe to call from several threads and processes."""

    def put(
        self,
        product_id: str,
        title: str,
        description: str,
        attributes: Attributes,
        images: Sequence[NewImage] | None,
    ) -> tuple[Product, bool]:
        """Create or replace a product durably; returns it and whether it is new.

        `images=None` keeps the images it has. An image that stays keeps its image id; its revision
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
        """Remove a product and its images durably; NotFound when missing."""
        ...

    def image(self, image_id: str) -> ProductImage:
        """Read one image; NotFound when missing."""
        ...

    def counts(self) -> tuple[int, int]:
        """Count products and images."""
        ...


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
        """Find the `limit` nearest distinct products, each by its best image.

        `vector` is float32 (dimension,), not necessarily normalized; scores are cosine similarities,
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
        """Score these products, each by its best image under the filter, as `search_products` does.

        Products without an image in the collection, or that do not pass the filter, are left out.
        """
        ...

    def ping(self) -> None:
        """Return when the store answers."""
        ...


__all__ = [
    "Blobs",
    "Captions",
    "EncoderClient",
    "KeywordIndex",
    "Ledger",
    "Products",
    "VectorStore",
]
