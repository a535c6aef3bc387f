"""A replica's captions: batches that gather across requests, and items that fail alone."""

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.errors import InvalidImage, UnsupportedModality
from deployments.replicas.encoder import EncoderReplica
from models.config import CaptionConfig, EncoderConfig
from tests.support.image_files import file

pytestmark = pytest.mark.anyio


def png(color: str) -> bytes:
    return file(Image.new("RGB", (30, 20), color), "PNG")


def replica(captions: CaptionConfig | None) -> EncoderReplica:
    return EncoderReplica(
        EncoderConfig(name="tested", family="fake", captions=captions, batch_wait_timeout_s=0.1)
    )


async def test_images_of_all_requests_share_batches_and_fail_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = replica(CaptionConfig(max_batch_size=3))
    sizes: list[int] = []
    write = served._encoder.write

    def counted(batch: NDArray[np.uint8]) -> list[str]:
        sizes.append(len(batch))
        return write(batch)

    monkeypatch.setattr(served._encoder, "write", counted)
    red, blue, encoded = await asyncio.gather(
        served.caption([png("red"), b"words", png("navy")]),
        served.caption([png("blue")] * 4),
        served.encode([png("red")]),
    )
    assert (red.texts[0], red.texts[2]) == ("a red thing", "a navy thing")
    assert isinstance(red.texts[1], InvalidImage)
    assert red.timings_ms["replica"] > 0
    assert blue.texts == ["a blue thing"] * 4
    assert len(encoded.vectors) == 1
    assert sizes == [3, 3]


async def test_a_replica_without_captions_refuses_the_call() -> None:
    with pytest.raises(UnsupportedModality, match="tested writes no captions"):
        await replica(None).caption([png("red")])
