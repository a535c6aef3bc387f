"""A replica decodes beside its model, keeps the model to one thread, and says when it is dead."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.errors import InvalidImage, ModelUnavailable
from deployments import encoder as replicas
from deployments.encoder import DEAD_BATCHES, EncoderReplica
from models.config import EncoderConfig
from models.encoder import Encoder
from tests.unit.models.picture_files import file

pytestmark = pytest.mark.anyio
PATIENCE_S = 10


def png(level: int) -> bytes:
    return file(Image.new("RGB", (8, 8), (level, 0, 0)), "PNG")


@pytest.fixture
def replica() -> EncoderReplica:
    return EncoderReplica(EncoderConfig(name="tested", family="fake", max_batch_size=4))


async def test_the_next_pictures_are_decoded_while_the_model_is_busy(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, decoded = threading.Event(), threading.Event()
    forward, decode = replica._encoder.forward, replica._encoder.decode
    batches: list[bool] = []

    def wait_for_the_next(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        busy.set()
        batches.append(decoded.wait(PATIENCE_S))
        return forward(batch)

    def note(picture: bytes) -> NDArray[np.uint8]:
        pixels = decode(picture)
        if busy.is_set():
            decoded.set()
        return pixels

    monkeypatch.setattr(replica._encoder, "forward", wait_for_the_next)
    monkeypatch.setattr(replica._encoder, "decode", note)
    first = asyncio.create_task(replica.encode([png(1)]))
    assert await asyncio.to_thread(busy.wait, PATIENCE_S)
    answers = [await replica.encode([png(2)]), await first]
    assert batches[0], "the model was busy until the next picture had been decoded"
    assert all(isinstance(answer.vectors[0], np.ndarray) for answer in answers)


async def test_one_thread_loads_the_model_and_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()
    load = replicas.load_encoder

    def noted(config: EncoderConfig) -> Encoder:
        loaded = load(config)
        forward = loaded.forward
        threads.add(threading.get_ident())
        monkeypatch.setattr(
            loaded, "forward", lambda batch: threads.add(threading.get_ident()) or forward(batch)
        )
        return loaded

    monkeypatch.setattr(replicas, "load_encoder", noted)
    await EncoderReplica(EncoderConfig(name="tested", family="fake")).encode([png(1)])
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_model_that_fails_batch_after_batch_asks_to_be_replaced(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_batch: Sequence[object]) -> NDArray[np.float32]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    forward = replica._encoder.forward
    monkeypatch.setattr(replica._encoder, "forward", lost)
    for number in range(DEAD_BATCHES):
        await replica.check_health()
        (answer,) = (await replica.encode([png(number)])).vectors
        assert isinstance(answer, ModelUnavailable)
    with pytest.raises(ModelUnavailable, match="3 batches in a row"):
        await replica.check_health()
    monkeypatch.setattr(replica._encoder, "forward", forward)
    await replica.encode([png(9)])
    await replica.check_health()


async def test_broken_pictures_say_nothing_about_the_model(replica: EncoderReplica) -> None:
    for number in range(DEAD_BATCHES):
        (answer,) = (await replica.encode([b"no picture %d" % number])).vectors
        assert isinstance(answer, InvalidImage)
    await replica.check_health()
