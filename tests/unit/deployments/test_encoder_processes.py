"""A replica that decodes in processes answers as one that decodes in threads, and its memory is bounded."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.errors import Internal, InvalidImage, Overloaded
from core.types import PROBE, Box, Cropped
from deployments.replicas import encoder as replicas
from deployments.replicas.encoder import BATCHES_OF_SLOTS, IMAGES_A_PROCESS, EncoderReplica
from models.config import CaptionConfig, EncoderConfig
from models.encoder import Encoder
from models.fake import FakeEncoder
from tests.support.image_files import file
from tests.support.odd_decoders import obey

pytestmark = pytest.mark.anyio
PATIENCE_S = 30
CONFIG = EncoderConfig(name="tested", family="fake", max_batch_size=8, captions=CaptionConfig())


def png(level: int) -> bytes:
    return file(Image.new("RGB", (8, 8), (level, 0, 0)), "PNG")


def replica(processes: int = 1) -> EncoderReplica:
    return EncoderReplica(CONFIG.model_copy(update={"decode_processes": processes}))


@pytest.fixture
async def served() -> AsyncIterator[EncoderReplica]:
    made = replica()
    yield made
    assert made._processes is not None
    made._processes.close()


def free_slots(replica: EncoderReplica) -> int:
    assert replica._processes is not None
    return replica._processes._slots.free


async def until(condition: object, *wanted: object) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not callable(condition) or condition() not in wanted:
            await asyncio.sleep(0.001)


class Held:
    """A model that stands until it is let go."""

    def __init__(self, replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._forward = replica._encoder.forward
        monkeypatch.setattr(replica._encoder, "forward", self)

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.begun.set()
        assert self.go_on.wait(PATIENCE_S)
        return self._forward(batch)


async def test_answers_are_those_of_threads(served: EncoderReplica) -> None:
    threads = replica(0)
    random = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    photo = file(Image.fromarray(random), "PNG")
    inputs = [png(9), b"no image", photo, Cropped(photo, Box(0.1, 0.1, 0.5, 0.5)), "red", PROBE]
    found, expected = [(await each.encode(inputs)).vectors for each in (served, threads)]
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else str(one) == str(other)
    assert isinstance(found[1], InvalidImage)
    assert (await served.caption([png(255), b"no image"])).texts[0] == "a red thing"
    assert free_slots(served) == BATCHES_OF_SLOTS * CONFIG.max_batch_size


async def test_no_more_images_are_decoded_than_there_are_slots_and_all_are_answered(
    served: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, count = Held(served, monkeypatch), 10 * CONFIG.max_batch_size
    call = asyncio.create_task(served.encode([png(level) for level in range(count)]))
    await until(partial(free_slots, served), 0)
    decoded = len(served._images._queue) + sum(CONFIG.max_batch_size for _ in served._images._running)
    assert decoded <= BATCHES_OF_SLOTS * CONFIG.max_batch_size
    model.go_on.set()
    assert all(isinstance(each, np.ndarray) for each in (await call).vectors)
    await until(partial(free_slots, served), BATCHES_OF_SLOTS * CONFIG.max_batch_size)


async def test_callers_that_go_away_give_their_slots_back(
    served: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Held(served, monkeypatch)
    first = asyncio.create_task(served.encode([png(200)]))
    assert await asyncio.to_thread(model.begun.wait, PATIENCE_S)
    # Fewer than a batch: they wait in the queue.
    gone = asyncio.create_task(served.encode([png(level) for level in range(3)]))
    await until(lambda: len(served._images._queue), 3)
    gone.cancel()
    await asyncio.wait([gone])
    model.go_on.set()
    await first
    await served.encode([png(100)])
    await until(partial(free_slots, served), BATCHES_OF_SLOTS * CONFIG.max_batch_size)


@pytest.mark.parametrize("method", ["write", "look"])
async def test_images_that_wait_for_captions_or_matching_keep_no_slots_from_embeddings(
    method: str, served: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, run = threading.Event(), threading.Event(), getattr(served._encoder, method)

    def held(batch: NDArray[np.uint8]) -> list[object]:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return run(batch)

    async def ask() -> set[object]:
        count = 10 * CONFIG.max_batch_size
        if method == "write":
            return set((await served.caption([png(255)] * count)).texts)
        return set((await served.match("red", [(str(each), png(255)) for each in range(count)])).scores)

    monkeypatch.setattr(served._encoder, method, held)
    call = asyncio.create_task(ask())
    assert await asyncio.to_thread(begun.wait, PATIENCE_S)
    waiting = served._captions if method == "write" else served._looks
    await until(lambda: waiting._expected, 0)
    assert free_slots(served) == BATCHES_OF_SLOTS * CONFIG.max_batch_size
    go_on.set()
    assert await call == ({"a red thing"} if method == "write" else {1.0})


async def test_images_wait_for_slots_no_longer_than_for_others_to_be_decoded(
    served: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.decode_processes.PATIENCE_S", 0.05)
    model, count = Held(served, monkeypatch), 10 * CONFIG.max_batch_size
    call = asyncio.create_task(served.encode([png(level) for level in range(count)]))
    await until(partial(free_slots, served), 0)
    await until(lambda: served._images._expected, 0)
    model.go_on.set()
    answers = (await call).vectors
    refused = [each for each in answers if isinstance(each, Overloaded)]
    assert 0 < len(refused) < count
    assert sum(isinstance(each, np.ndarray) for each in answers) == count - len(refused)


async def test_a_bug_in_a_process_is_logged_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Encoder, "decoder", lambda _encoder: obey)
    monkeypatch.setattr(FakeEncoder, "decode", lambda _encoder, _image: obey(b"1"))
    served = replica()
    before, bug, after = (await served.encode([b"1", b"bug", b"2"])).vectors
    assert isinstance(before, np.ndarray)
    assert isinstance(after, np.ndarray)
    assert isinstance(bug, Internal)
    assert "ZeroDivisionError: a bug of ours" in caplog.text
    assert "odd_decoders.py" in caplog.text
    assert served._processes is not None
    served._processes.close()


@pytest.mark.parametrize(
    ("device", "config", "count"), [("cpu", None, 0), ("cuda", None, 3), ("cuda", 0, 0), ("cpu", 2, 2)]
)
def test_by_default_a_replica_with_a_gpu_decodes_in_processes(
    device: str, config: int | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[int]()
    monkeypatch.setattr(
        replicas, "DecodeProcesses", lambda _decode, slots, count: made.append(slots.count) or count
    )
    settings = EncoderConfig(
        name="tested", family="fake", decode_threads=3, max_batch_size=4, decode_processes=config
    )
    model = replicas.load_encoder(settings)
    model.info = replace(model.info, device=device)
    assert (replicas._start_processes(settings, model) or 0) == count
    # A task may take all its slots even where a batch is smaller.
    assert made == ([BATCHES_OF_SLOTS * max(8, count * IMAGES_A_PROCESS)] if count else [])
