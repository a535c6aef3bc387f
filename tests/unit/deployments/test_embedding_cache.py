"""Inputs that are the same reach the model once, and what is kept of them is bounded by bytes."""

from typing import Any

import numpy as np
import pytest

from core.errors import InvalidImage
from core.types import Box, Cropped, EncoderInfo, EncoderInput
from deployments.replicas.batching import Answers, Work
from deployments.replicas.embedding_cache import EmbeddingCache, SharedWorks, content_key

pytestmark = pytest.mark.anyio
INFO = EncoderInfo("tested", "fake", "", "0" * 12, 4, ("image", "text"), "fp32", "cpu")


def shared(max_bytes: int = 1024) -> SharedWorks:
    return SharedWorks(INFO, max_bytes)


def new_work(claimed: object) -> Work[Any, Any]:
    assert isinstance(claimed, Work)
    return claimed


async def test_the_same_content_is_embedded_once() -> None:
    works, answers = shared(), Answers[Any](1)
    works.settle([new_work(works.claim(b"seen", answers, 0))], [np.full(4, 0.5, np.float32)])
    (first,) = await answers.all("tested")
    again = works.claim(b"seen", Answers(1), 0)
    assert isinstance(again, np.ndarray)
    assert again.tolist() == first.tolist() == [0.5] * 4


async def test_inputs_that_wait_together_are_embedded_once() -> None:
    works, callers = shared(), [Answers[Any](2) for _ in range(4)]
    work = new_work(works.claim("words", callers[0], 0))
    places = [(answers, place) for answers in callers for place in (0, 1)][1:]
    assert [works.claim("words", answers, place) for answers, place in places] == [None] * 7
    works.settle([work], [np.ones(4, np.float32)])
    for answers in callers:
        assert all(each is not None for each in await answers.all("tested"))


async def test_words_are_not_taken_for_an_image() -> None:
    works, answers = shared(), Answers[Any](2)
    text = new_work(works.claim("same", answers, 0))
    assert new_work(works.claim(b"same", answers, 1)) is not text


async def test_errors_reach_all_who_wait_and_are_not_kept() -> None:
    works, answers = shared(), Answers[Any](2)
    work = new_work(works.claim(b"broken", answers, 0))
    assert works.claim(b"broken", answers, 1) is None
    works.settle([work], [InvalidImage("broken")])
    assert all(isinstance(each, InvalidImage) for each in await answers.all("tested"))
    assert new_work(works.claim(b"broken", Answers(1), 0)) is not work


async def test_a_caller_that_goes_away_leaves_the_answer_to_the_others() -> None:
    works, impatient, patient = shared(), Answers[Any](1), Answers[Any](1)
    work = new_work(works.claim("words", impatient, 0))
    assert works.claim("words", patient, 0) is None
    works.leave(impatient)
    assert work.waiters == [(patient, 0)]
    works.settle([work], [np.ones(4, np.float32)])
    assert isinstance((await patient.all("tested"))[0], np.ndarray)


async def test_what_nobody_waits_for_any_more_is_given_up() -> None:
    works, callers = shared(), [Answers[Any](1) for _ in range(2)]
    given_up = new_work(works.claim("words", callers[0], 0))
    assert works.claim("words", callers[1], 0) is None
    for answers in callers:
        works.leave(answers)
    assert not given_up.waiters
    assert new_work(works.claim("words", Answers(1), 0)) is not given_up
    assert works.claim("other", callers[0], 0) is None, "whose caller has gone makes no work"


async def test_without_a_cache_each_input_is_embedded_by_itself() -> None:
    works, answers = shared(0), Answers[Any](2)
    first = new_work(works.claim(b"same", answers, 0))
    assert new_work(works.claim(b"same", answers, 1)) is not first


DIMENSION = 8
BYTES = 4 * DIMENSION


def vector(value: float) -> np.ndarray:
    return np.full(DIMENSION, value, np.float32)


def keys(count: int) -> list[bytes]:
    return [content_key("0" * 12, str(number)) for number in range(count)]


def test_what_was_put_comes_back_and_cannot_be_changed_by_its_reader() -> None:
    cache, key = EmbeddingCache(10 * BYTES, DIMENSION), keys(1)[0]
    assert cache.get(key) is None
    cache.put({key: vector(0.5)})
    read = cache.get(key)
    assert read is not None
    assert read.dtype == np.float32
    read[:] = 0
    again = cache.get(key)
    assert again is not None
    assert again.tolist() == vector(0.5).tolist()


def test_the_least_recently_used_makes_room() -> None:
    cache, (a, b, c) = EmbeddingCache(2 * BYTES, DIMENSION), keys(3)
    cache.put({a: vector(1)})
    cache.put({b: vector(2)})
    cache.get(a)
    cache.put({c: vector(3)})
    assert cache.get(b) is None
    for key, value in ((a, 1), (c, 3)):
        held = cache.get(key)
        assert held is not None
        assert held[0] == value


def test_putting_the_same_key_again_takes_no_more_room() -> None:
    cache, (a, b) = EmbeddingCache(2 * BYTES, DIMENSION), keys(2)
    for value in range(5):
        cache.put({a: vector(value)})
    cache.put({b: vector(9)})
    held = cache.get(a)
    assert held is not None
    assert held[0] == 4
    assert len(cache) == 2


@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_vectors_that_are_put_together_make_room_as_one_by_one(room: int) -> None:
    together, one_by_one = (EmbeddingCache(room * BYTES, DIMENSION) for _ in range(2))
    first, *others = vectors = {key: vector(number) for number, key in enumerate(keys(4))}
    for cache in (together, one_by_one):
        cache.put({first: vector(9)})
    together.put(vectors)
    for key, value in vectors.items():
        one_by_one.put({key: value})
    for key in (first, *others):
        held, wanted = together.get(key), one_by_one.get(key)
        assert (held is None) == (wanted is None)
        assert held is None or held.tolist() == vectors[key].tolist()
    assert len(together) == len(one_by_one) == min(room, 4)


@pytest.mark.parametrize("vectors", [0, 1, 7])
def test_never_more_vectors_than_the_bytes_hold(vectors: int) -> None:
    cache = EmbeddingCache(vectors * BYTES + BYTES - 1, DIMENSION)
    for key in keys(20):
        cache.put({key: vector(1)})
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
