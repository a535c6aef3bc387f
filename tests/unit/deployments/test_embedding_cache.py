"""Inputs that are the same reach the model once, and what is kept of them is bounded by bytes."""

import asyncio
from collections import Counter

import numpy as np
import pytest
from ray.serve import metrics

from core.errors import InvalidImage, VitrineError
from core.types import Box, Cropped, EncoderInfo, EncoderInput, Vector
from deployments.replicas.embedding_cache import CachedEmbeddings, EmbeddingCache, content_key

pytestmark = pytest.mark.anyio
INFO = EncoderInfo("tested", "fake", "", "0" * 12, 4, ("image", "text"), "fp32", "cpu")


class Model:
    """Answers with the length of its input, slowly; says how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[EncoderInput] = []
        self.answered: list[EncoderInput] = []

    async def embed(self, item: EncoderInput) -> Vector | VitrineError:
        self.asked.append(item)
        await asyncio.sleep(0.01)
        self.answered.append(item)
        if item == b"broken":
            return InvalidImage("broken")
        if item == b"raises":
            raise InvalidImage("raised")
        return np.full(4, len(item), np.float32)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def cached(model: Model) -> CachedEmbeddings:
    return CachedEmbeddings(INFO, 1024, model.embed)


async def test_the_same_content_is_embedded_once(model: Model, cached: CachedEmbeddings) -> None:
    first, second = await cached.embed(b"seen"), await cached.embed(b"seen")
    assert isinstance(first, np.ndarray)
    assert isinstance(second, np.ndarray)
    assert first.tolist() == second.tolist() == [4.0] * 4
    assert model.asked == [b"seen"]


async def test_inputs_that_wait_together_are_embedded_once(model: Model, cached: CachedEmbeddings) -> None:
    answers = await asyncio.gather(*(cached.embed("words") for _ in range(8)))
    assert len(answers) == 8
    assert model.asked == ["words"]


async def test_words_are_not_taken_for_an_image(model: Model, cached: CachedEmbeddings) -> None:
    await cached.embed("same")
    await cached.embed(b"same")
    assert model.asked == ["same", b"same"]


async def test_errors_are_not_kept(model: Model, cached: CachedEmbeddings) -> None:
    for _ in range(2):
        assert isinstance(await cached.embed(b"broken"), InvalidImage)
        with pytest.raises(InvalidImage, match="raised"):
            await cached.embed(b"raises")
    assert model.asked == [b"broken", b"raises"] * 2


async def test_a_caller_that_goes_away_leaves_the_answer_to_the_others(
    model: Model, cached: CachedEmbeddings
) -> None:
    impatient = asyncio.create_task(cached.embed("words"))
    patient = asyncio.create_task(cached.embed("words"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert isinstance(await patient, np.ndarray)
    assert impatient.cancelled()
    assert model.asked == ["words"]


async def test_every_input_counts_as_a_hit_or_as_a_miss(
    cached: CachedEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counter[str]()

    def count(counter: metrics.Counter, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        counted[counter.info["name"]] += int(value)

    monkeypatch.setattr(metrics.Counter, "inc", count)
    await asyncio.gather(*(cached.embed("together") for _ in range(3)))
    for item in ("together", "other", b"broken", b"broken"):
        await cached.embed(item)
    hits, misses = (f"vitrine_embedding_cache_{name}_total" for name in ("hits", "misses"))
    assert counted == {hits: 3, misses: 4}


async def test_what_nobody_waits_for_any_more_is_given_up(model: Model, cached: CachedEmbeddings) -> None:
    impatient = [asyncio.create_task(cached.embed("words")) for _ in range(2)]
    await asyncio.sleep(0)
    for task in impatient:
        task.cancel()
    await asyncio.wait(impatient)
    late = await cached.embed("words")
    assert isinstance(late, np.ndarray)
    assert model.asked == ["words"] * 2
    assert model.answered == ["words"]


DIMENSION = 8
BYTES = 4 * DIMENSION


def vector(value: float) -> np.ndarray:
    return np.full(DIMENSION, value, np.float32)


def keys(count: int) -> list[bytes]:
    return [content_key("0" * 12, str(number)) for number in range(count)]


def test_what_was_put_comes_back_and_cannot_be_changed_by_its_reader() -> None:
    cache, key = EmbeddingCache(10 * BYTES, DIMENSION), keys(1)[0]
    assert cache.get(key) is None
    cache.put(key, vector(0.5))
    read = cache.get(key)
    assert read is not None
    assert read.dtype == np.float32
    read[:] = 0
    again = cache.get(key)
    assert again is not None
    assert again.tolist() == vector(0.5).tolist()


def test_the_least_recently_used_makes_room() -> None:
    cache, (a, b, c) = EmbeddingCache(2 * BYTES, DIMENSION), keys(3)
    cache.put(a, vector(1))
    cache.put(b, vector(2))
    cache.get(a)
    cache.put(c, vector(3))
    assert cache.get(b) is None
    for key, value in ((a, 1), (c, 3)):
        held = cache.get(key)
        assert held is not None
        assert held[0] == value


def test_putting_the_same_key_again_takes_no_more_room() -> None:
    cache, (a, b) = EmbeddingCache(2 * BYTES, DIMENSION), keys(2)
    for value in range(5):
        cache.put(a, vector(value))
    cache.put(b, vector(9))
    held = cache.get(a)
    assert held is not None
    assert held[0] == 4
    assert len(cache) == 2


@pytest.mark.parametrize("vectors", [0, 1, 7])
def test_never_more_vectors_than_the_bytes_hold(vectors: int) -> None:
    cache = EmbeddingCache(vectors * BYTES + BYTES - 1, DIMENSION)
    for key in keys(20):
        cache.put(key, vector(1))
    assert len(cache) == vectors


def test_keys_differ_by_version_kind_and_content() -> None:
    boxes = [Box(0, 0, 0.5, 1), Box(0.5, 0, 0.5, 1)]
    inputs: list[tuple[str, EncoderInput]] = [
        *(("a", b"x"), ("a", "x"), ("a", b"y"), ("b", b"x"), ("b", "x"), ("", b"a x")),
        *(("a", Cropped(b"x", box)) for box in boxes),
    ]
    assert len({content_key(version, item) for version, item in inputs}) == len(inputs)
    assert content_key("a", b"x") == content_key("a", bytes(bytearray(b"x")))
    assert content_key("a", Cropped(b"x", Box(0, 0, 0.5, 1))) == content_key("a", inputs[6][1])
