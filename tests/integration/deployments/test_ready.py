"""Readiness: every encoder does real work, and none takes over before its collection is complete."""

import asyncio
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from catalog.opening import Catalog
from core.ensemble import EnsembleSearch
from core.indexing import Indexer
from core.search import ModelSearch
from core.store_check import StoreCheck
from core.types import PROBE, Encoded, EncoderInput, NewImage
from deployments.replicas.handles import Scale
from deployments.services.encoders import EncoderSet
from deployments.services.status import Readiness, Status, cached_counts
from milvus.memory import MemoryStore
from tests.support.catalog_fixtures import new_catalog
from tests.support.indexed import repair
from tests.support.local_encoder import LocalEncoder

COLORS = ("red", "lime", "blue", "white")


class WatchedEncoder(LocalEncoder):
    """Remembers the images that it was asked to embed."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__("fake", checkpoint)
        self.asked: list[EncoderInput] = []

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        self.asked += inputs
        return await super().encode(inputs)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = new_catalog(tmp_path)
    for color in COLORS:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), color).save(buffer, "PNG")
        opened.products.put(color, color, "", {}, [NewImage(buffer.getvalue(), "image/png", 8, 8)])
    yield opened
    opened.close()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def index_all(encoder: LocalEncoder, catalog: Catalog, store: MemoryStore) -> None:
    asyncio.run(repair(Indexer(encoder, store, catalog.ledger, catalog.blobs)))


@pytest.fixture
def encoder(catalog: Catalog, store: MemoryStore) -> WatchedEncoder:
    """Return an encoder that has indexed the catalog."""
    encoder = WatchedEncoder("old")
    index_all(encoder, catalog, store)
    encoder.asked.clear()
    return encoder


def status_of(
    encoder: LocalEncoder, catalog: Catalog, store: MemoryStore, scale: Scale | None = None
) -> Status:
    async def report(_name: str) -> Scale:
        return scale or Scale()

    encoders = EncoderSet(["fake"], lambda _name: encoder)
    counts = cached_counts(catalog.ledger, ttl_s=0)
    check = StoreCheck(store, catalog.ledger)
    ensemble = EnsembleSearch({encoder.name: ModelSearch(encoder, store)}, deadline_s=5)
    return Status(catalog, store, encoders, ensemble, 0.9, counts, check, report)


def ready(
    encoder: LocalEncoder, catalog: Catalog, store: MemoryStore, scale: Scale | None = None
) -> Readiness:
    return asyncio.run(status_of(encoder, catalog, store, scale).ready())


def test_an_encoder_whose_collection_is_complete_is_ready(
    encoder: WatchedEncoder, catalog: Catalog, store: MemoryStore
) -> None:
    assert ready(encoder, catalog, store).problems == {}


def test_new_weights_without_a_complete_collection_are_not_ready_and_both_versions_are_named(
    catalog: Catalog, store: MemoryStore
) -> None:
    old, new = WatchedEncoder("old"), WatchedEncoder("new")
    index_all(old, catalog, store)
    problem = ready(new, catalog, store).problems["fake"]
    old_info, new_info = asyncio.run(old.describe()), asyncio.run(new.describe())
    assert old_info.fingerprint != new_info.fingerprint
    assert f"{new_info.collection} holds 0 of 4 images" in problem
    assert f"the live collection is {old_info.collection}" in problem


def test_new_weights_are_ready_once_their_own_collection_is_complete(
    catalog: Catalog, store: MemoryStore
) -> None:
    for checkpoint in ("old", "new"):
        index_all(WatchedEncoder(checkpoint), catalog, store)
    new = WatchedEncoder("new")
    assert asyncio.run(new.describe()).collection != store.alias_target("fake")
    assert ready(new, catalog, store).problems == {}


def test_a_collection_that_lacks_images_says_how_many(
    encoder: WatchedEncoder, catalog: Catalog, store: MemoryStore
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), "black").save(buffer, "PNG")
    catalog.products.put("late", "", "", {}, [NewImage(buffer.getvalue(), "image/png", 9, 9)])
    problem = ready(encoder, catalog, store).problems["fake"]
    assert "holds 4 of 5 images" in problem
    assert "live" not in problem


def test_checks_at_the_same_time_are_one(
    encoder: WatchedEncoder, catalog: Catalog, store: MemoryStore
) -> None:
    status = status_of(encoder, catalog, store)

    async def many() -> list[Readiness]:
        return await asyncio.gather(*(status.ready() for _ in range(20)))

    assert [each.problems for each in asyncio.run(many())] == [{}] * 20
    assert encoder.asked == [PROBE], "the ensemble searches with what the encoder has made of the image"
    asyncio.run(status.ready())
    assert encoder.asked == [PROBE] * 2


def test_a_model_at_zero_is_ready_and_is_not_started(
    encoder: WatchedEncoder, catalog: Catalog, store: MemoryStore
) -> None:
    encoder.away = True
    assert ready(encoder, catalog, store, Scale(at_zero=True, deployed_at=1.0)).problems == {}
    assert encoder.asked == []


def test_a_model_without_replicas_that_has_failed_to_deploy_is_not_ready(
    catalog: Catalog, store: MemoryStore
) -> None:
    encoder = WatchedEncoder("old")
    encoder.away = True
    problems = ready(encoder, catalog, store, Scale(at_zero=True, deployed_at=None)).problems
    assert problems == {"fake": "fake is not available"}


def test_a_controller_that_hangs_keeps_no_model_from_being_ready(
    encoder: WatchedEncoder, catalog: Catalog, store: MemoryStore
) -> None:
    status = status_of(encoder, catalog, store)

    async def never(_name: str) -> Scale:
        await asyncio.Event().wait()
        return Scale()

    status._scale = never
    assert asyncio.run(status.ready()).problems == {}
