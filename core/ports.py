"""Protocols of what core needs: image files, captions, encoders, ledger, keyword index and vector store."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from core.errors import VitrineError
from core.filters import Filter
from core.types import (
    Attributes,
    Captioned,
    CollectionInfo,
    Encoded,
    EncoderInfo,
    EncoderInput,
    Hit,
    IndexItem,
    ProductImage,
    Removal,
    Vector,
    VectorRow,
)


class Blobs(Protocol):
    """Image files by the sha256 of their bytes. Blocking; safe to call from several threads."""

    def put(self, data: bytes) -> str:
        """Store durably; returns the lower-case hex sha256. Storing the same bytes again writes nothing."""

    def get(self, sha256: str) -> bytes:
        """Read a file; NotFound when missing."""

    def size(self, sha256: str) -> int | None:
        """Look up the bytes of a file; None when missing."""


class Captions(Protocol):
    """Captions of images, one row an image and model. Blocking; safe to call from anywhere.

    An image's bytes never change under its id. So a caption is out of date only when other weights or settings,
    with another `fingerprint`, write captions under the model's name.
    """

    def missing(self, model: str, fingerprint: str, limit: int) -> list[ProductImage]:
        """List images that this version has neither captioned nor failed on, oldest revision first."""

    def put(self, model: str, fingerprint: str, captions: Sequence[tuple[str, str]]) -> None:
        """Store captions durably by image id, in place of the model's former ones."""

    def fail(self, model: str, fingerprint: str, errors: Sequence[tuple[str, VitrineError]]) -> None:
        """Put images, by image id, into quarantine for this version; a former caption stays."""

    def retry_bugs(self, model: str) -> int:
        """Release from quarantine what met a bug of another release of Vitrine; returns the number."""

    def forget_gone(self) -> int:
        """Delete the rows of images that are no longer in the catalog; returns their number."""


class EncoderClient(Protocol):
    """An encoder in this process or behind a Serve handle."""

    name: str

    async def describe(self) -> EncoderInfo:
        """Return the version that serves.

        Raises:
            ModelUnavailable: no replica answers.
        """

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed images and texts; each input succeeds or fails alone.

        Raises:
            ModelUnavailable: no replica answers.
            DeadlineExceeded: the encoder took too long.
        """

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        """Caption image files; each succeeds or fails alone.

        Raises:
            UnsupportedModality: the encoder writes no captions.
            ModelUnavailable: no replica answers.
            DeadlineExceeded: the encoder took too long.
        """


class Ledger(Protocol):
    """Record of which image, at which revision, is in which collection. Blocking; safe to call from anywhere.

    A row is opened before its vector is written and settled after that, so every vector that may exist in Milvus
    has a row. The write of a product opens the rows of all its new and former images in its own transaction. So what
    is missing or obsolete is among the open rows, once a version is recorded: it has a row for every image.
    """

    def register(self, info: EncoderInfo) -> None:
        """Record a model version, so that every later write of a product opens rows in its collection."""

    def versions(self) -> list[EncoderInfo]:
        """List all registered model versions, oldest first."""

    def missing(self, collection: str, limit: int, grace_s: float = 0.0) -> list[IndexItem]:
        """List images whose current revision has no settled row, except those opened within `grace_s`."""

    def open(self, collection: str, items: Sequence[IndexItem]) -> None:
        """Announce that these rows are about to be written."""

    def settle(self, items: Mapping[str, Sequence[IndexItem]]) -> dict[str, list[IndexItem]]:
        """Record that Milvus holds these rows, by collection, in one transaction.

        Returns those that are obsolete by now or whose row is gone, by collection; an empty list where all are well.
        """

    def fail(self, collection: str, errors: Sequence[tuple[IndexItem, VitrineError]]) -> None:
        """Put these images into quarantine with their errors; rows that are obsolete by now stay open."""

    def retry_bugs(self, collection: str) -> int:
        """Release from quarantine what met a bug of another release of Vitrine; returns the number."""

    def obsolete(self, collection: str, limit: int, grace_s: float = 0.0) -> list[str]:
        """List row keys whose image is gone or has a newer revision, except rows opened within `grace_s`.

        While the newer revision is not settled, the oldest such row of its image waits: its vector can be copied,
        and the product is found by it meanwhile.
        """

    def begin_removal(self, collection: str, keys: Sequence[str], grace_s: float) -> Removal:
        """Open these rows; returns those whose vectors may be deleted.

        The row of a current image becomes missing and is not returned. Nor are rows that others opened within
        `grace_s`.
        """

    def end_removal(self, removals: Mapping[str, Removal]) -> None:
        """Delete the rows whose vectors were deleted, by collection, except those that others changed since then."""

    def reset(self, collection: str) -> None:
        """Open all rows of a collection that Milvus has lost or may have lost."""

    def store_id(self) -> str | None:
        """Read the id of the store that the ledger describes; None while there is none."""

    def make_store_id(self) -> str:
        """Read the id of the store, or create it; concurrent callers get the same."""

    def has_settled(self) -> bool:
        """Return whether any row of any collection is settled."""

    def forget_store(self, store_id: str | None) -> None:
        """Forget the store of this id and open all rows; does nothing when the ledger has another id by now."""

    def copies(self, info: EncoderInfo, image_ids: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
        """Return where else the vector of each image may be: collections with row keys, newest first, by image id.

        These are the image's rows at other revisions in the version's collection, and all its rows in collections
        of the same weights with another `index_schema`.
        """


class KeywordIndex(Protocol):
    """Full-text search over products. Blocking; safe to call from anywhere.

    Products are found by the words of their id, title, attributes, description and captions as soon as these are
    stored. Every method may raise Unavailable.
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
        """Find the `limit` products with images that match best, each by its first image.

        A product matches when it holds every word of the text, or with `every_word=False` at least one. Hits come
        best first, ties by product id; scores are comparable within one result only. Fewer than `limit` hits mean
        that no more products match, under the filter and without the excluded ones.

        Raises:
            DeadlineExceeded: it took longer than `timeout_s`, and was stopped.
        """


class VectorStore(Protocol):
    """Collections of vectors. All calls block; all are safe to repeat and to call from several threads.

    Every method may raise StoreUnavailable; those that name a missing collection raise NotFound.
    """

    address: str
    """Address, for logs."""
    rebuilt_if_empty: bool
    """An empty store lost its data, and is filled again without confirmation."""

    def marks(self) -> set[str]:
        """Read the ids of the catalogs that have marked this store as theirs."""

    def set_mark(self, store_id: str) -> None:
        """Mark this store durably as that of the catalog with this id of 32 hex digits; others' marks stay."""

    def has_collection(self, name: str) -> bool:
        """Return whether there is a collection or an alias of that name."""

    def ensure_collection(self, name: str, dimension: int) -> None:
        """Create, index and load the collection unless it exists; Conflict if its dimension differs."""

    def drop_collection(self, name: str) -> None:
        """Drop the collection and the aliases that point at it; nothing happens when it is missing."""

    def collections(self) -> list[CollectionInfo]:
        """List the collections by name, without marks."""

    def set_alias(self, alias: str, collection: str) -> None:
        """Point the alias at the collection, wherever it pointed before."""

    def alias_target(self, alias: str) -> str | None:
        """Name the collection behind the alias."""

    def check_attributes(self, attributes: Attributes) -> None:
        """Raise InvalidInput for attributes of a product that new collections cannot hold."""

    def upsert(self, collection: str, rows: Sequence[VectorRow]) -> None:
        """Write rows by key; returns when they are durable and visible to searches."""

    def delete(self, collection: str, keys: Sequence[str]) -> None:
        """Remove rows by key; missing keys are fine."""

    def fetch(self, collection: str, keys: Sequence[str]) -> dict[str, Vector]:
        """Read vectors by row key; missing keys are left out."""

    def keys(self, collection: str, first: str = "", beyond: str | None = None) -> Iterator[str]:
        """Iterate over the row keys with `first <= key < beyond` in their order, by default all."""

    def search_products(
        self,
        collection: str,
        vector: Vector,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
    ) -> list[Hit]:
        """Find the `limit` nearest distinct products, each by its best image.

        `vector` is float32 (dimension,), not necessarily normalized. Scores are cosine similarities, best first.
        Scores within `SCORE_TOLERANCE` tie: all get the best of them, and are ordered by product id. So a larger
        limit continues the same order, except that products whose scores differ by almost the tolerance may swap.
        Fewer than `limit` hits mean that the collection has no more products, under the filter and without the
        excluded ones.
        """

    def score_products(
        self, collection: str, vector: Vector, products: Sequence[str], filter: Filter | None = None
    ) -> list[Hit]:
        """Score these products, each by its best image under the filter, as `search_products` does.

        Products without an image in the collection, or that do not pass the filter, are left out.
        """

    def ping(self) -> None:
        """Return as soon as the store answers."""
