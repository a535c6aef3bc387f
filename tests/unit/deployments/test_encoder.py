"""A replica decodes beside its model, keeps the model to one thread, and says when it is dead."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.errors import Internal, InvalidImage, ModelUnavailable, UnsupportedModality, VitrineError
from core.telemetry import current_request_id
from core.types import PROBE, Vector
from deployments.observability.metrics import CACHE_HITS, STAGE_SECONDS
from deployments.observability.telemetry import as_request
from deployments.replicas import encoder as replicas
from deployments.replicas.batching import Answers
from deployments.replicas.encoder import DEAD_BATCHES, EncoderReplica
from models.config import CaptionConfig, EncoderConfig
from models.encoder import Encoder, Pixels
from models.fake import FakeEncoder
from models.fake import load as load_fake
from models.images import Decoded
from models.matching import Features
from tests.support.image_files import file
from tests.support.telemetry import RecordedMetrics

pytestmark = pytest.mark.anyio
PATIENCE_S = 10


def png(level: int) -> bytes:
    return file(Image.new("RGB", (8, 8), (level, 0, 0)), "PNG")


def colored(color: str) -> bytes:
    return file(Image.new("RGB", (30, 20), color), "PNG")


def replica_config() -> EncoderConfig:
    return EncoderConfig(name="tested", family="fake", max_batch_size=4)


@pytest.fixture
def replica() -> EncoderReplica:
    return EncoderReplica(replica_config())


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return RecordedMetrics(monkeypatch)


async def test_the_next_images_are_decoded_while_the_model_is_busy(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, decoded = threading.Event(), threading.Event()
    forward, decode = replica._encoder.forward, replica._encoder.decode
    batches: list[bool] = []

    def wait_for_the_next(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        busy.set()
        batches.append(decoded.wait(PATIENCE_S))
        return forward(batch)

    def note(image: bytes) -> NDArray[np.uint8]:
        pixels = decode(image)
        if busy.is_set():
            decoded.set()
        return pixels

    monkeypatch.setattr(replica._encoder, "forward", wait_for_the_next)
    monkeypatch.setattr(replica._encoder, "decode", note)
    first = asyncio.create_task(replica.encode([png(1)]))
    assert await asyncio.to_thread(busy.wait, PATIENCE_S)
    answers = [await replica.encode([png(2)]), await first]
    assert batches[0], "the model was busy until the next image had been decoded"
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


@pytest.mark.parametrize("call", ["image", "text", "caption"])
async def test_a_model_that_fails_batch_after_batch_asks_to_be_replaced(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = EncoderReplica(EncoderConfig(name="tested", family="fake", captions=CaptionConfig()))

    async def answer(number: int) -> object:
        if call == "caption":
            return (await replica.caption([png(number)])).texts[0]
        return (await replica.encode([png(number) if call == "image" else f"red {number}"])).vectors[0]

    def lost(_batch: Sequence[object]) -> NDArray[np.float32]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as broken:
        for method in ("forward", "forward_texts", "write"):
            broken.setattr(replica._encoder, method, lost)
        for number in range(DEAD_BATCHES):
            await replica.check_health()
            assert isinstance(await answer(number), ModelUnavailable)
        with pytest.raises(ModelUnavailable, match="3 batches in a row"):
            await replica.check_health()
    assert not isinstance(await answer(9), ModelUnavailable)
    await replica.check_health()


@pytest.mark.parametrize("method", ["forward", "write", "look", "judge"])
async def test_a_batch_that_hangs_asks_for_another_replica(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EncoderConfig(name="tested", family="fake", max_batch_s=0.01, captions=CaptionConfig())
    replica = EncoderReplica(config)
    run, begun, going_on = getattr(replica._encoder, method), threading.Event(), threading.Event()

    def hangs(*inputs: object) -> object:
        begun.set()
        assert going_on.wait(60)
        return run(*inputs)

    monkeypatch.setattr(replica._encoder, method, hangs)
    call = {
        "forward": lambda: replica.encode([png(1)]),
        "write": lambda: replica.caption([png(1)]),
    }.get(method, lambda: replica.match("red", [("a", png(1))]))
    asked = asyncio.create_task(call())
    try:
        assert await asyncio.to_thread(begun.wait, 60)
        await asyncio.sleep(0.02)
        with pytest.raises(ModelUnavailable, match="has been in the model for"):
            await replica.check_health()
    finally:
        going_on.set()
    await asked
    await replica.check_health()


class Ahead(FakeEncoder):
    """A model whose answers are read when `go_on` is set."""

    runs_ahead = True

    def __init__(self, fake: FakeEncoder) -> None:
        super().__init__(fake.info, fake._limits, fake._draft_target)
        self.begun, self.go_on = list[int](), threading.Event()

    def start_images(self, images: Sequence[Pixels] | Pixels) -> Callable[[], list[Vector | VitrineError]]:
        self.begun.append(len(images))
        return partial(self._read, self.encode_images(images))

    def start_texts(self, texts: Sequence[str]) -> Callable[[], list[Vector | VitrineError]]:
        return partial(self._read, self.encode_texts(texts))

    def _read(self, answers: list[Vector | VitrineError]) -> list[Vector | VitrineError]:
        assert self.go_on.wait(60)
        return answers


async def test_a_gpu_has_two_batches_and_one_that_never_ends_asks_for_another_replica(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[Ahead]()

    def load(config: EncoderConfig) -> Ahead:
        made.append(Ahead(load_fake(config)))
        return made[0]

    monkeypatch.setattr(replicas, "load_encoder", load)
    ahead = EncoderReplica(replica_config().model_copy(update={"max_batch_s": 0.01}))
    inputs = ["red", *(png(level) for level in range(12))]
    asked = asyncio.create_task(ahead.encode(inputs))
    try:
        async with asyncio.timeout(60):
            while sum(made[0].begun) < 5:
                await asyncio.sleep(0.001)
            while ahead._reader is None or ahead._reader.busy_s < 0.02:
                await asyncio.sleep(0.001)
        assert ahead._model_thread.busy_s == 0
        with pytest.raises(ModelUnavailable, match="has been in the model for"):
            await ahead.check_health()
    finally:
        made[0].go_on.set()
    for found, alone in zip((await asked).vectors, (await replica.encode(inputs)).vectors, strict=True):
        assert isinstance(found, np.ndarray)
        assert isinstance(alone, np.ndarray)
        np.testing.assert_array_equal(found, alone)
    await ahead.check_health()


async def test_bad_inputs_say_nothing_about_the_model() -> None:
    replica = EncoderReplica(EncoderConfig(name="tested", family="fake", captions=CaptionConfig()))
    for number in range(DEAD_BATCHES):
        (answer,) = (await replica.encode([b"no image %d" % number])).vectors
        assert isinstance(answer, InvalidImage)
        (text,) = (await replica.caption([b"no image %d" % number])).texts
        assert isinstance(text, InvalidImage)
    await replica.check_health()


async def test_images_are_decoded_for_their_request(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, ids = replica._encoder.decode, list[str]()

    def noted(image: bytes) -> NDArray[np.uint8]:
        ids.append(current_request_id())
        return decode(image)

    monkeypatch.setattr(replica._encoder, "decode", noted)
    with as_request("shop-17"):
        await replica.encode([png(1)])
    assert ids == ["shop-17"]


async def test_a_bug_that_one_image_meets_costs_its_own_answer_alone(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    preprocess = replica._encoder.preprocess

    def fails_on_red(image: Decoded) -> NDArray[np.uint8]:
        if image.image.getpixel((0, 0)) == (255, 0, 0):
            raise ZeroDivisionError("a bug of ours")
        return preprocess(image)

    monkeypatch.setattr(replica._encoder, "preprocess", fails_on_red)
    before, broken, after = (await replica.encode([png(1), png(255), png(2)])).vectors
    assert isinstance(before, np.ndarray)
    assert isinstance(broken, Internal)
    assert isinstance(after, np.ndarray)
    assert "ZeroDivisionError: a bug of ours" in caplog.text
    assert "Traceback" in caplog.text
    await replica.check_health()


async def test_text_for_a_model_that_reads_none_takes_no_place_in_a_batch(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_batch: Sequence[str]) -> NDArray[np.float32]:
        pytest.fail("the model was asked")

    blind = replace(replica._encoder.info, modalities=("image",))
    monkeypatch.setattr(replica._encoder, "info", blind)
    monkeypatch.setattr(replica._encoder, "forward_texts", partial(Encoder.forward_texts, replica._encoder))
    monkeypatch.setattr(replica._texts, "_run", never)
    (answer,) = (await replica.encode(["red"])).vectors
    assert isinstance(answer, UnsupportedModality)


async def test_probes_run_the_model_itself_once_in_a_while_and_leave_the_cache_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("core.concurrency.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    replica = EncoderReplica(EncoderConfig(name="tested", family="fake"))
    forward, passes = replica._encoder.forward, list[int]()
    monkeypatch.setattr(
        replica._encoder, "forward", lambda batch: passes.append(len(batch)) or forward(batch)
    )
    answers = [(await replica.encode([PROBE])).vectors[0] for _ in range(20)]
    answers += [
        each.vectors[0] for each in await asyncio.gather(*(replica.encode([PROBE]) for _ in range(20)))
    ]
    assert all(isinstance(answer, np.ndarray) for answer in answers)
    assert passes == [1]
    assert replicas.PROBE_TTL_S <= 10, "a broken model must be seen soon"
    clock.now_s += replicas.PROBE_TTL_S
    await replica.encode([PROBE])
    assert passes == [1, 1]


async def test_a_failed_probe_is_not_kept(replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = replica._encoder.forward

    def lost(_batch: Sequence[object]) -> NDArray[np.float32]:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(replica._encoder, "forward", lost)
    assert isinstance((await replica.encode([PROBE])).vectors[0], ModelUnavailable)
    monkeypatch.setattr(replica._encoder, "forward", forward)
    assert isinstance((await replica.encode([PROBE])).vectors[0], np.ndarray)


def captioning(captions: CaptionConfig | None) -> EncoderReplica:
    return EncoderReplica(EncoderConfig(name="tested", family="fake", captions=captions))


async def test_images_of_all_requests_share_batches_and_fail_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = captioning(CaptionConfig(max_batch_size=3))
    # As long as decoding takes on whatever machine; it ends when no image is on its way.
    monkeypatch.setattr(served._captions, "_wait_s", PATIENCE_S)
    sizes: list[int] = []
    write = served._encoder.write

    def counted(batch: NDArray[np.uint8]) -> list[str]:
        sizes.append(len(batch))
        return write(batch)

    monkeypatch.setattr(served._encoder, "write", counted)
    red, blue, encoded = await asyncio.gather(
        served.caption([colored("red"), b"words", colored("navy")]),
        served.caption([colored("blue")] * 4),
        served.encode([colored("red")]),
    )
    assert (red.texts[0], red.texts[2]) == ("a red thing", "a navy thing")
    assert isinstance(red.texts[1], InvalidImage)
    assert red.timings_ms["replica"] > 0
    assert blue.texts == ["a blue thing"] * 4
    assert len(encoded.vectors) == 1
    assert sizes == [3, 3]


async def test_a_replica_without_captions_refuses_the_call() -> None:
    with pytest.raises(UnsupportedModality, match="tested writes no captions"):
        await captioning(None).caption([png(1)])


class Held:
    """Decoding that stands until it is let go; counts the images that it began with."""

    def __init__(self, replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = list[bytes](), threading.Event()
        self._decode = replica._encoder.decode
        monkeypatch.setattr(replica._encoder, "decode", self)

    def __call__(self, image: bytes) -> NDArray[np.uint8]:
        self.begun.append(image)
        assert self.go_on.wait(PATIENCE_S)
        return self._decode(image)

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.begun) < count:
                await asyncio.sleep(0.001)


async def test_what_is_decoded_at_once_makes_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = EncoderReplica(EncoderConfig(name="tested", family="fake", decode_threads=2))
    monkeypatch.setattr(replica._images, "_wait_s", PATIENCE_S)
    forward, sizes = replica._encoder.forward, list[int]()
    monkeypatch.setattr(replica._encoder, "forward", lambda batch: sizes.append(len(batch)) or forward(batch))
    held = Held(replica, monkeypatch)
    calls = [asyncio.create_task(replica.encode([png(number)])) for number in range(9)]
    await held.wait_for(2)
    held.go_on.set()
    await asyncio.gather(*calls)
    assert sizes == [9]


async def test_images_of_one_request_share_tasks_and_equal_ones_are_decoded_once(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch, recorded: RecordedMetrics
) -> None:
    decode, decoded = replica._encoder.decode, list[bytes]()
    monkeypatch.setattr(replica._encoder, "decode", lambda image: decoded.append(image) or decode(image))
    inputs = [png(number % 10) for number in range(20)] + [b"no image"]
    vectors = (await replica.encode(inputs)).vectors
    assert isinstance(vectors[20], InvalidImage)
    # 21 images in tasks of four, and one record a task.
    assert len(recorded.of(STAGE_SECONDS, stage="preprocess", model="tested")) <= 6
    assert sum(recorded.of(CACHE_HITS, model="tested")) == 10
    other = EncoderReplica(replica_config())
    for place in range(20):
        found, alone = vectors[place], (await other.encode([inputs[place]])).vectors[0]
        assert isinstance(found, np.ndarray)
        assert isinstance(alone, np.ndarray)
        assert np.array_equal(found, alone)
    assert sorted(decoded) == sorted({*inputs})
    await replica.encode(inputs[:10])
    assert len(decoded) == 11


async def test_images_of_a_caller_that_goes_away_are_not_decoded_and_others_get_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replica = EncoderReplica(EncoderConfig(name="tested", family="fake", decode_threads=1))
    held = Held(replica, monkeypatch)
    gone = asyncio.create_task(replica.encode([png(number) for number in range(12)]))
    await held.wait_for(1)
    staying = asyncio.create_task(replica.encode([png(3), png(40)]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    held.go_on.set()
    answers = (await staying).vectors
    assert gone.cancelled()
    assert all(isinstance(each, np.ndarray) for each in answers)
    # The one that had begun, and those of the caller that stayed.
    assert held.begun == [png(0), png(3), png(40)]
    # Nothing is expected any more, so nobody waits.
    assert replica._images._expected == 0


async def test_an_answered_request_leaves_nothing_to_the_garbage_collector(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[weakref.ref[object]] = []

    class Noted(Answers[object]):
        def __init__(self, count: int) -> None:
            super().__init__(count)
            requests.append(weakref.ref(self))

    monkeypatch.setattr(replicas, "Answers", {Vector | VitrineError: Noted})
    gc.disable()
    try:
        await replica.encode([*(png(number) for number in range(9)), b"no image", "red"])
        async with asyncio.timeout(PATIENCE_S):
            # Threads let go of it a moment later. It holds all images of its request.
            while any(each() is not None for each in requests):
                await asyncio.sleep(0.001)
    finally:
        gc.enable()
    assert len(requests) == 1


async def test_images_are_matched_by_their_files_once_and_then_by_what_the_cache_holds(
    replica: EncoderReplica,
) -> None:
    files = {"a": colored("red"), "b": colored("blue"), "c": b"no image"}
    unknown = await replica.match("red", [(name, None) for name in files])
    assert unknown.scores == [None, None, None]
    sent = await replica.match("a red thing", list(files.items()))
    assert sent.scores[:2] == [1.0, 0.0]
    assert isinstance(sent.scores[2], InvalidImage)
    assert sent.info.matching is not None
    held = await replica.match("a blue thing", [("b", None), ("c", None), ("a", None)])
    assert held.scores == [1.0, None, 0.0]


async def test_texts_that_are_matched_at_once_keep_their_scores_apart(replica: EncoderReplica) -> None:
    files = [("a", colored("red")), ("b", colored("blue"))]
    await replica.match("red", files)
    texts = ["a red thing", "a blue thing"] * 4
    found = await asyncio.gather(
        *(replica.match(text, [(name, None) for name, _ in files]) for text in texts)
    )
    assert [each.scores for each in found] == [[1.0, 0.0], [0.0, 1.0]] * 4


async def test_what_waits_to_be_matched_is_given_up_with_its_request(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [("a", colored("red")), ("b", colored("blue"))]
    await replica.match("red", files)
    judge, judged, go_on = replica._encoder.judge, list[str](), threading.Event()

    def slow(text: str, features: Sequence[Features]) -> list[float]:
        judged.append(text)
        assert go_on.wait(60)
        return judge(text, features)

    monkeypatch.setattr(replica._encoder, "judge", slow)
    held = [(name, None) for name, _ in files]
    first = asyncio.create_task(replica.match("red", held))
    async with asyncio.timeout(60):
        while not judged:
            await asyncio.sleep(0.001)
        gone = asyncio.create_task(replica.match("green", held))
        while not replica._matches._queue:
            await asyncio.sleep(0.001)
    (work, _) = replica._matches._queue
    gone.cancel()
    last = asyncio.create_task(replica.match("blue", held))
    await asyncio.gather(gone, return_exceptions=True)
    assert gone.cancelled()
    # Its features go, whoever holds the work.
    assert not hasattr(work, "item")
    go_on.set()
    assert [(await each).scores for each in (first, last)] == [[1.0, 0.0], [0.0, 1.0]]
    assert judged == ["red", "blue"]


async def test_features_beyond_the_bytes_of_the_cache_are_computed_anew() -> None:
    # What the fake keeps of an image is 24 bytes.
    config = replica_config().model_copy(update={"feature_cache_max_bytes": 3 * 24})
    replica = EncoderReplica(config)
    files = [(str(level), png(level)) for level in range(10)]
    scored = await replica.match("black", files)
    assert scored.scores == [1.0] * 10
    held = await replica.match("black", [(name, None) for name, _ in files])
    assert held.scores == [None] * 7 + [1.0] * 3


async def test_a_model_without_a_matching_head_is_not_asked_to_match(
    replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica._encoder, "info", replace(replica._encoder.info, matching=None))
    with pytest.raises(UnsupportedModality, match="no matching head"):
        await replica.match("red", [("a", colored("red"))])


@pytest.mark.parametrize("step", ["look", "judge"])
async def test_a_replica_that_fails_to_match_any_image_asks_to_be_replaced(
    step: str, replica: EncoderReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_inputs: object) -> list[object]:
        raise RuntimeError("the GPU is lost")

    monkeypatch.setattr(replica._encoder, step, fail)
    for level in range(DEAD_BATCHES):
        (answer,) = (await replica.match("red", [("a", png(level))])).scores
        assert isinstance(answer, ModelUnavailable)
    with pytest.raises(ModelUnavailable):
        await replica.check_health()
