"""The background repair with captions switched on."""

import asyncio
from pathlib import Path

import pytest

from catalog.database import CatalogConfig
from catalog.opening import open_catalog
from deployments.config import IngestCaptions, RepairArgs
from deployments.replicas import repair
from milvus.config import MilvusConfig
from milvus.memory import MemoryStore
from models.config import CaptionConfig
from tests.support.image_files import image
from tests.support.local_encoder import LocalEncoder


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> LocalEncoder:
    local = LocalEncoder("writer", captions=CaptionConfig())
    monkeypatch.setattr(repair, "HandleEncoder", lambda name, deadline_s, scale: local)
    monkeypatch.setattr(repair, "MilvusStore", lambda config: MemoryStore())
    return local


def args(folder: Path, captions: IngestCaptions | None) -> RepairArgs:
    return RepairArgs(
        catalog=CatalogConfig(database_url=f"sqlite:///{folder}/c.sqlite", blobs_url=str(folder / "blobs")),
        milvus=MilvusConfig(uri="http://127.0.0.1:1"),
        interval_s=0.01,
        grace_s=0,
        captions=captions,
    )


async def run_until(
    config: RepairArgs, indexed: int, captions: set[str | None], encoder: LocalEncoder
) -> None:
    """Let the repair run until so many images are indexed and have these captions, and then once more."""
    replica = repair.RepairReplica(config)
    catalog, collection = replica._catalog, encoder._encoder.info.collection
    await replica.reconfigure({"models": ["writer"]})

    def state() -> tuple[int, set[str | None]]:
        images = [each for product in catalog.products.page(10) for each in product.images]
        return catalog.ledger.counts(collection).indexed, {each.caption for each in images}

    async with asyncio.timeout(60):
        while state() != (indexed, captions):
            await asyncio.sleep(0.02)
    if replica._captions is not None:
        await replica._captions.run_once()
    assert state() == (indexed, captions)
    await replica.check_health()
    await replica.stop()
    catalog.close()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    opened = open_catalog(args(tmp_path, None).catalog)
    for color in ("red", "blue"):
        opened.products.put(color, "", "", {}, [image(color)])
    opened.close()
    return tmp_path


def test_images_are_captioned_when_the_configuration_says_so(stored: Path, encoder: LocalEncoder) -> None:
    config = args(stored, IngestCaptions(model="writer"))
    asyncio.run(run_until(config, 2, {"a red thing", "a blue thing"}, encoder))


def test_no_captions_are_written_unless_asked_for(stored: Path, encoder: LocalEncoder) -> None:
    asyncio.run(run_until(args(stored, None), 2, {None}, encoder))


def test_a_model_that_writes_none_is_reported_and_stops_nothing(
    stored: Path, monkeypatch: pytest.MonkeyPatch, encoder: LocalEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    plain = LocalEncoder("writer")
    monkeypatch.setattr(repair, "HandleEncoder", lambda name, deadline_s, scale: plain)
    config = args(stored, IngestCaptions(model="writer"))
    with caplog.at_level("WARNING", logger="deployments"):
        asyncio.run(run_until(config, 2, {None}, plain))
    assert len([record for record in caplog.records if "writes no captions" in record.message]) == 1
