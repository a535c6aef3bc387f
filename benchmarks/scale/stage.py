"""Where the run takes place: a real PostgreSQL, a real Milvus server, and the service's parts in this process."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace

import psycopg
from pymilvus import MilvusClient

from benchmarks.scale.corpus import Batch, Corpus, product_id, vector_of
from catalog.database import CatalogConfig
from catalog.opening import Catalog, open_catalog
from catalog.products import PutProduct
from catalog.tables import Base, DocumentRow, EmbeddingRow, ImageRow, ProductRow
from core.errors import UnsupportedModality, VitrineError
from core.index_rows import IndexRows
from core.types import (
    Captioned,
    Encoded,
    EncoderInfo,
    EncoderInput,
    IndexItem,
    NewImage,
    TokenCount,
    Vector,
    VectorRow,
)
from milvus.config import IndexedAttribute, MilvusConfig
from milvus.store import MilvusStore

MODEL = "scale"
DECLARED = (
    IndexedAttribute(name="color", type="string"),
    IndexedAttribute(name="brand", type="string"),
    IndexedAttribute(name="price", type="number"),
)
_SHARED_IMAGE = NewImage(b"every product has this file, which no model reads", "image/jpeg", 1000, 1000)
_CALL_S = 120.0
"""Limit of a call to Milvus, which builds indexes on the same cores."""
_INDEXED_S = 1_800.0
_LOADING_S = 15.0
_AHEAD = 2
"""Batches that wait for Milvus while the catalog takes further ones."""


class MadeEncoder:
    """An encoder that computes nothing: the query of a number has its vector, any file one made of its bytes."""

    def __init__(self, corpus: Corpus, index_schema: str) -> None:
        self.name = MODEL
        self._corpus = corpus
        self.info = EncoderInfo(
            MODEL,
            family="fake",
            checkpoint="",
            fingerprint="0" * 12,
            dimension=corpus.dimension,
            modalities=("image", "text"),
            precision="float32",
            device="cpu",
            index_schema=index_schema,
        )

    async def describe(self) -> EncoderInfo:
        return self.info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        return Encoded(self.info, [self._vector(each) for each in inputs])

    async def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        return TokenCount(len(texts))

    async def caption(self, _images: Sequence[bytes]) -> Captioned:
        raise UnsupportedModality(f"{self.name} writes no captions")

    def _vector(self, item: EncoderInput) -> Vector:
        if isinstance(item, str):
            return self._corpus.query(int(item))
        return vector_of(item if isinstance(item, bytes) else item.data, self._corpus.dimension)


class Stage:
    """A catalog, a store and an encoder that grow together."""

    def __init__(self, corpus: Corpus, catalog: CatalogConfig, milvus: MilvusConfig) -> None:
        self.corpus = corpus
        self.catalog_config, self.milvus_config = catalog, milvus
        self.catalog: Catalog = open_catalog(catalog)
        self.store = MilvusStore(milvus)
        self.encoder = MadeEncoder(corpus, milvus.index_schema)
        self.rows = IndexRows(self.store, self.catalog.ledger)
        self.rows.prepare(self.encoder.info)
        self._items: list[IndexItem] = []

    @property
    def collection(self) -> str:
        """The collection of all vectors."""
        return self.encoder.info.collection

    def fill(self, size: int) -> float:
        """Grow to so many products, all indexed; returns the seconds that this took, without Milvus's index.

        The first `corpus.distinct` go through the write of the catalog. The others are copies of their rows within
        the database, under other ids: that takes minutes where the writes would take most of an hour.
        """
        started = time.perf_counter()
        written = max(self.corpus.size, min(size, self.corpus.distinct))
        with ThreadPoolExecutor(2, "fill") as pool:
            waiting: list[Future[None]] = []
            for batch in self.corpus.grow(written):
                items = _put(self.catalog, self.collection, batch)
                self._items += items
                waiting.append(pool.submit(self._index, batch, items))
                _leave(_AHEAD, waiting)
            _leave(0, waiting)
            copied = pool.submit(self._copy, written, size)
            for batch in self.corpus.grow(size):
                self._upsert(batch, self._copies(batch))
            copied.result()
        return time.perf_counter() - started

    def settle(self) -> float:
        """Bring database and Milvus to the state of a catalog that stands; returns the seconds that this took.

        What was just written Milvus searches without an index, and builds one meanwhile on the same cores.
        """
        started = time.perf_counter()
        with psycopg.connect(self.catalog_config.database_url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        with closing(MilvusClient(self.milvus_config.uri)) as client:
            client.flush(self.collection)
            deadline = time.monotonic() + _INDEXED_S
            while True:
                index = client.describe_index(self.collection, "embedding")
                if index["indexed_rows"] >= self.corpus.size and index["pending_index_rows"] == 0:
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"Milvus did not index the rows within {_INDEXED_S:.0f} s: {index}")
                time.sleep(1)
        # Milvus does not report when it has loaded a new index.
        time.sleep(_LOADING_S)
        return time.perf_counter() - started

    def versions(self) -> dict[str, str]:
        """Return the versions of both servers."""
        with psycopg.connect(self.catalog_config.database_url) as connection:
            ((postgresql,),) = connection.execute("SHOW server_version").fetchall()
        with closing(MilvusClient(self.milvus_config.uri)) as client:
            return {"postgresql": postgresql, "milvus": client.get_server_version()}

    def close(self) -> None:
        """Close the connections."""
        self.store.close()
        self.catalog.close()

    def _index(self, batch: Batch, items: Sequence[IndexItem]) -> None:
        self._upsert(batch, items)
        if any(self.catalog.ledger.settle({self.collection: items}).values()):
            raise RuntimeError("rows became obsolete although nobody else writes")

    def _upsert(self, batch: Batch, items: Sequence[IndexItem]) -> None:
        rows = [VectorRow(item, vector) for item, vector in zip(items, batch.vectors, strict=True)]
        self.store.upsert(self.collection, rows)

    def _copies(self, batch: Batch) -> list[IndexItem]:
        """Return the images of a batch that `_copy` makes."""
        copy, source = divmod(batch.first, self.corpus.distinct)
        return [
            replace(item, image_id=_copied_id(item.image_id, copy), product_id=batch.product_id(index))
            for index, item in enumerate(self._items[source : source + len(batch)])
        ]

    def _copy(self, first: int, size: int) -> None:
        """Copy the rows of the first products, settled ledger rows included, as the products `first` to `size`."""
        distinct = self.corpus.distinct
        numbers = {
            "distinct": distinct,
            "first": first // distinct,
            "last": size // distinct - 1,
            "beyond": product_id(distinct),
        }
        with psycopg.connect(self.catalog_config.database_url) as connection:
            for table, owner, changed in _COPIED:
                columns = [each.name for each in table.__table__.columns if changed.get(each.name) != ""]
                values = [changed.get(each, each) for each in columns]
                connection.execute(
                    f"INSERT INTO {table.__tablename__} ({', '.join(columns)}) SELECT {', '.join(values)} "
                    f"FROM {table.__tablename__} CROSS JOIN generate_series(%(first)s::int, %(last)s::int) AS copy "
                    f"WHERE {owner}",
                    numbers,
                )


_OWN = "{0} LIKE 'p%%' AND {0} < %(beyond)s"
_NEW_ID = "'p' || lpad((substr({0}, 2)::bigint + copy * %(distinct)s)::text, 9, '0')"
_NEW_IMAGE = "md5({0} || ':' || copy)"
_COPIED: Sequence[tuple[type[Base], str, Mapping[str, str]]] = (
    (ProductRow, _OWN.format("id"), {"id": _NEW_ID.format("id")}),
    # The database gives a document its number.
    (DocumentRow, _OWN.format("product_id"), {"id": "", "product_id": _NEW_ID.format("product_id")}),
    (
        ImageRow,
        _OWN.format("product_id"),
        {"id": _NEW_IMAGE.format("id"), "product_id": _NEW_ID.format("product_id")},
    ),
    (
        EmbeddingRow,
        f"image_id IN (SELECT id FROM images WHERE {_OWN.format('product_id')})",
        {"image_id": _NEW_IMAGE.format("image_id")},
    ),
)
"""Tables, which of their rows belong to the first products, and the columns that a copy has anew."""


def _copied_id(image_id: str, copy: int) -> str:
    return hashlib.md5(f"{image_id}:{copy}".encode(), usedforsecurity=False).hexdigest()


def _leave(count: int, waiting: list[Future[None]]) -> None:
    """Wait until so many are left."""
    while len(waiting) > count:
        waiting.pop(0).result()


def _put(catalog: Catalog, collection: str, batch: Batch) -> list[IndexItem]:
    """Put the products of a batch in one transaction; returns their images, one each, with open rows."""
    outcomes = catalog.products.write(
        [
            PutProduct(batch.product_id(i), *_texts(batch, i), batch.attributes(i), [_SHARED_IMAGE])
            for i in range(len(batch))
        ]
    )
    items: list[IndexItem] = []
    for outcome in outcomes:
        if isinstance(outcome, VitrineError):
            raise outcome
        items += outcome.work.missing[collection]
    return items


def _texts(batch: Batch, index: int) -> tuple[str, str]:
    attributes = batch.attributes(index)
    title = f"A {attributes['color']} product of {attributes['brand']}"
    return title, f"{title}, number {batch.first + index}, for every day."


@contextmanager
def stage(corpus: Corpus, postgres_url: str, milvus_uri: str, folder: str, declared: bool) -> Iterator[Stage]:
    """Open an empty catalog in this database, with its files in the folder, over this Milvus.

    `declared` says whether the attributes that filters name are `milvus.indexed_attributes`.
    """
    catalog = CatalogConfig(database_url=postgres_url, blobs_url=f"{folder}/blobs")
    attributes = DECLARED if declared else ()
    milvus = MilvusConfig(uri=milvus_uri, timeout_s=_CALL_S, indexed_attributes=attributes)
    opened = Stage(corpus, catalog, milvus)
    try:
        yield opened
    finally:
        opened.close()
