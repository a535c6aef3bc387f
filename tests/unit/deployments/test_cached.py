"""Inputs that are the same reach the model once."""

import asyncio
from collections import Counter

import numpy as np
import pytest
from ray.serve import metrics

from core.errors import InvalidImage, VitrineError
from core.types import EncoderInfo, EncoderInput, Vector
from deployments.replicas.embedding_cache import CachedEmbeddings

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
