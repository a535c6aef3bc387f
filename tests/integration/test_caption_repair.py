"""The background repair with captions switched on."""

import asyncio
import io
from pathlib import Path

import pytest
from PIL import Image

from catalog.config import CatalogConfig
from catalog.opening import open_catalog
from core.types import NewPicture
from deployments import repair
from deployments.captions_config import IngestCaptions
from deployments.config import RepairArgs
from milvus.config import MilvusConfig
from milvus.memory import MemoryStore
from models.config import CaptionConfig
from tests.local_encoder import LocalEncoder


def picture(colour: str) -> NewPicture:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return NewPicture(buffer.getvalue(), "image/png", 40, 30)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> LocalEncoder:
    local = LocalEncoder("writer", captions=CaptionConfig())
    monkeypatch.setattr(repair, "HandleEncoder", lambda name, deadline_s: local)
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


async def run_for(config: RepairArgs, seconds: float, encoder: LocalEncoder) -> tuple[int, set[str | None]]:
    """Let the repair run; returns how many pictures are indexed, and the captions that pictures have."""
    replica = repair.RepairReplica(config)
    await replica.reconfigure({"models": ["writer"]})
    await asyncio.sleep(seconds)
    await replica.check_health()
    for loop in replica._loops:
        loop.cancel()
    await asyncio.gather(*replica._loops, return_exceptions=True)
    opened = open_catalog(config.catalog)
    collection = encoder._encoder.info.collection
    shown = {each.caption for product in opened.products.page(10) for each in product.pictures}
    counts = opened.ledger.counts(collection)
    opened.close()
    replica._catalog.close()
    return counts.indexed, shown


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    opened = open_catalog(args(tmp_path, None).catalog)
    for colour in ("red", "blue"):
        opened.products.put(colour, "", "", {}, [picture(colour)])
    opened.close()
    return tmp_path


def test_pictures_are_captioned_when_the_configuration_says_so(stored: Path, encoder: LocalEncoder) -> None:
    config = args(stored, IngestCaptions(model="writer"))
    assert asyncio.run(run_for(config, 2, encoder)) == (2, {"a red thing", "a blue thing"})


def test_no_captions_are_written_unless_asked_for(stored: Path, encoder: LocalEncoder) -> None:
    assert asyncio.run(run_for(args(stored, None), 2, encoder)) == (2, {None})


def test_a_model_that_writes_none_is_told_and_stops_nothing(
    stored: Path, monkeypatch: pytest.MonkeyPatch, encoder: LocalEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    plain = LocalEncoder("writer")
    monkeypatch.setattr(repair, "HandleEncoder", lambda name, deadline_s: plain)
    config = args(stored, IngestCaptions(model="writer"))
    with caplog.at_level("WARNING", logger="deployments"):
        assert asyncio.run(run_for(config, 2, plain)) == (2, {None})
    assert len([record for record in caplog.records if "writes no captions" in record.message]) == 1
