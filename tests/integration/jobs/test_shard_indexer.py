"""One actor of a bulk build, without Ray: what it takes up, what it fails on, what it leaves."""

import itertools
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from catalog.opening import Catalog, open_catalog
from catalog.products import PutProduct
from core.errors import ConfigError, VitrineError
from core.filters import parse_filter
from core.types import EncoderInfo, Vector
from jobs.build.shard_indexer import ShardIndexer, ShardWork
from milvus.config import IndexedAttribute, MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels, load_encoder
from tests.support.catalog_fixtures import sqlite_in
from tests.support.image_files import image

ALL = {"first": "", "beyond": "g"}


@dataclass
class Shop:
    catalog: Catalog
    store: MilvusStore
    work: ShardWork
    folder: Path

    def put(self, count: int) -> None:
        puts = [
            PutProduct(f"p{n}", "", "", {"color": f"c{n % 3}", "number": n}, [image((n, 255 - n, 128))])
            for n in range(count)
        ]
        self.catalog.products.write(puts)

    @property
    def info(self) -> EncoderInfo:
        return self.work.info


@pytest.fixture
def shop(tmp_path: Path, lite_uri: str) -> Iterator[Shop]:
    # A version of this test's own: the server is shared.
    encoder = EncoderConfig(name="fake", family="fake", checkpoint=uuid.uuid4().hex)
    info = load_encoder(encoder).info
    work = ShardWork(sqlite_in(tmp_path), MilvusConfig(uri=lite_uri), encoder, info, 4, 2, load_encoder)
    catalog, store = open_catalog(work.catalog), MilvusStore(work.milvus)
    yield Shop(catalog, store, work, tmp_path)
    store.drop_collection(info.collection)
    store.close()
    catalog.close()


def test_a_range_is_completed_and_then_holds_nothing_to_do(shop: Shop) -> None:
    shop.put(30)
    actor = ShardIndexer(shop.work)
    lower = actor({"first": "", "beyond": "8"})
    assert lower["indexed"] == len([key for key in shop.store.keys(shop.info.collection) if key < "8"])
    assert lower["indexed"] + actor({"first": "8", "beyond": "g"})["indexed"] == 30
    again = actor(ALL)
    assert (again["indexed"], again["failed"], again["pending"]) == (0, 0, 0)
    assert shop.catalog.ledger.counts(shop.info.collection).missing == 0


def test_ranges_at_once_index_every_image_once(shop: Shop) -> None:
    shop.put(40)
    actor = ShardIndexer(shop.work)
    bounds = ["", "4", "8", "c", "g"]
    rows = [{"first": first, "beyond": beyond} for first, beyond in itertools.pairwise(bounds)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(actor, rows))
    assert sum(result["indexed"] for result in results) == 40
    assert len(list(shop.store.keys(shop.info.collection))) == 40


def test_an_image_that_cannot_be_read_fails_alone_and_is_not_tried_again(shop: Shop) -> None:
    shop.put(10)
    broken, missing = (shop.catalog.products.get(f"p{number}").images[0] for number in (3, 7))
    for sha256, content in ((broken.sha256, b"no image"), (missing.sha256, None)):
        (file,) = (shop.folder / "blobs").rglob(sha256)
        file.unlink() if content is None else file.write_bytes(content)
    actor = ShardIndexer(shop.work)
    result = actor(ALL)
    assert (result["indexed"], result["failed"], result["pending"]) == (8, 2, 0)
    assert shop.catalog.ledger.counts(shop.info.collection).failed == 2
    assert actor(ALL)["failed"] == 0


def load_blind(config: EncoderConfig) -> Encoder:
    """Load an encoder that can encode nothing."""
    encoder = load_encoder(config)

    def encode_images(_images: Sequence[Pixels]) -> list[Vector | VitrineError]:
        raise AssertionError("this vector was to be copied")

    encoder.encode_images = encode_images  # type: ignore[method-assign]
    return encoder


def test_a_build_with_other_indexed_attributes_copies_every_vector(shop: Shop) -> None:
    shop.put(12)
    several = {"color": ["red", "blue"]}
    shop.catalog.products.put("several", "", "", several, [image((9, 9, 9))])
    ShardIndexer(shop.work)(ALL)
    color = IndexedAttribute(name="color", type="string")
    declaring = shop.work.milvus.model_copy(update={"indexed_attributes": (color,)})
    info = replace(shop.info, index_schema=declaring.index_schema)
    store = MilvusStore(declaring)
    result = ShardIndexer(replace(shop.work, milvus=declaring, info=info, load=load_blind))(ALL)
    assert (result["indexed"], result["failed"], result["pending"]) == (12, 1, 0)
    (failed,) = shop.catalog.quarantine.page(info.collection, 10)
    assert "the attribute 'color' is a list; milvus.indexed_attributes declares it" in str(failed)
    keys = list(store.keys(info.collection))
    copied, original = store.fetch(info.collection, keys), store.fetch(shop.info.collection, keys)
    assert len(keys) == 12
    for key in keys:
        np.testing.assert_array_equal(copied[key], original[key])
    for filter in ({"color": "c1"}, {"not": {"color": "c1"}, "number": {"lt": 6}}):
        pages = [
            store.search_products(each.collection, copied[keys[0]], 20, parse_filter(filter))
            for each in (info, shop.info)
        ]
        found = [{hit.product_id for hit in page} - {"several"} for page in pages]
        assert found[0] == found[1]
        assert 0 < len(found[0]) < 12
    store.drop_collection(info.collection)
    store.close()


def test_other_weights_than_the_build_is_for_are_refused(shop: Shop) -> None:
    other = EncoderConfig(name="fake", family="fake", checkpoint="other")
    with pytest.raises(ConfigError, match="pin its revision"):
        ShardIndexer(ShardWork(shop.work.catalog, shop.work.milvus, other, shop.info, 4, 2, load_encoder))
