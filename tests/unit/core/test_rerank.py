"""The second stage: places of what is scored and of what is not, and what ends the scoring."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from core.errors import DeadlineExceeded, InvalidImage, InvalidInput, ModelUnavailable, NotFound, VitrineError
from core.rerank import IMAGES_A_CALL, Matcher, Matches, Rerank, match_images, rerank_hits
from core.types import EncoderInfo, Hit, Matched, NamedFile

pytestmark = pytest.mark.anyio
INFO = EncoderInfo("blip2", "fake", "", "0" * 12, 2, ("image", "text"), "fp32", "cpu", matching="a" * 12)
OTHER = EncoderInfo("blip2", "fake", "", "1" * 12, 2, ("image", "text"), "fp32", "cpu", matching="b" * 12)
LONG_S = 60.0


def hits(names: str) -> list[Hit]:
    return [Hit(f"i-{name}", 1, name, 1 - place / 100) for place, name in enumerate(names)]


def names(found: Sequence[Hit]) -> str:
    return "".join(hit.product_id for hit in found)


def reranked(found: str, depth: int, **scores: float) -> str:
    matches = Matches("v", scores, {name: "late" for name in found if name not in scores})
    return names(rerank_hits(hits(found), Rerank("m", depth), {name: name for name in found}, matches)[0])


def test_the_best_matches_come_first_and_the_rest_follows_as_it_was() -> None:
    assert reranked("abcdef", 3, a=0.1, b=0.3, c=0.2, d=9.0) == "bcadef"


def test_what_has_no_score_keeps_its_place() -> None:
    assert reranked("abcde", 5, a=0.1, c=0.2, e=0.9) == "ebcda"


def test_equal_scores_keep_the_order_of_the_first_stage() -> None:
    assert reranked("abcd", 4, d=1.0, a=1.0, b=2.0, c=1.0) == "bacd"


def test_pages_are_cut_from_one_order_however_deep_they_are() -> None:
    scores = {"a": 0.0, "b": 3.0, "c": 1.0, "d": 2.0}
    whole = reranked("abcdefgh", 4, **scores)
    assert [reranked("abcdefgh"[:length], 4, **scores) for length in range(4, 9)] == [
        whole[:length] for length in range(4, 9)
    ]


def test_the_outcome_counts_what_kept_its_place_by_the_reason() -> None:
    matches = Matches("v", {"a": 1.0}, {"b": "late", "c": "late", "d": "broken"})
    _, outcome = rerank_hits(hits("abcde"), Rerank("m", 4), {name: name for name in "abcde"}, matches)
    assert (outcome.version, dict(outcome.scores)) == ("v", {"a": 1.0})
    assert outcome.skipped == {"late": 2, "broken": 1}


class Judge:
    """Scores an image by the number in its name; `held` need no file."""

    def __init__(self, held: Sequence[str] = ()) -> None:
        self.held = set(held)
        self.calls: list[list[NamedFile]] = []
        self.answer: Callable[[list[NamedFile]], Matched | None] = lambda _: None

    async def match(self, text: str, images: Sequence[NamedFile]) -> Matched:
        self.calls.append(list(images))
        if (given := self.answer(list(images))) is not None:
            return given
        return Matched(INFO, [self._score(*each) for each in images])

    def _score(self, name: str, data: bytes | None) -> float | VitrineError | None:
        if data == b"broken":
            return InvalidImage("cannot be decoded")
        return float(name) if data is not None or name in self.held else None


def read(name: str) -> bytes:
    return name.encode()


async def given(judge: Matcher) -> Matcher:
    return judge


async def matched(
    judge: Judge, images: Sequence[str], read: Callable[[str], bytes] = read, deadline_s: float = LONG_S
) -> Matches:
    return await match_images(given(judge), "red", images, read, deadline_s)


NUMBERS = [str(number) for number in range(2 * IMAGES_A_CALL + 3)]


async def test_only_files_that_the_encoder_lacks_are_read_and_sent() -> None:
    judge = Judge(held=NUMBERS[:5])
    sent: list[str] = []

    def note(name: str) -> bytes:
        sent.append(name)
        return read(name)

    found = await matched(judge, NUMBERS, note)
    assert found.scores == {name: float(name) for name in NUMBERS}
    assert (found.failed, found.version) == ({}, INFO.matching)
    assert sorted(sent, key=int) == NUMBERS[5:]
    first, *others = judge.calls
    assert first == [(name, None) for name in NUMBERS]
    assert all(len(call) <= IMAGES_A_CALL for call in others)


async def test_cached_features_need_one_call() -> None:
    judge = Judge(held=NUMBERS)
    await matched(judge, NUMBERS)
    assert len(judge.calls) == 1


async def test_what_was_scored_before_the_encoder_was_late_counts() -> None:
    judge = Judge(held=NUMBERS[:4])

    def late(images: list[NamedFile]) -> None:
        if images[0][1] is not None:
            raise DeadlineExceeded("blip2 did not answer within 5 s")

    judge.answer = late
    found = await matched(judge, NUMBERS)
    assert sorted(found.scores) == sorted(NUMBERS[:4])
    assert set(found.failed) == set(NUMBERS[4:])
    assert set(found.failed.values()) == {"blip2 did not answer within 5 s"}


async def test_an_encoder_that_hangs_is_left_at_the_deadline() -> None:
    judge, stopped = Judge(), asyncio.Event()

    async def hang(text: str, images: Sequence[NamedFile]) -> Matched:
        if images[0][1] is None:
            return Matched(INFO, [1.0, *([None] * (len(images) - 1))])
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError

    judge.match = hang  # type: ignore[method-assign]
    found = await matched(judge, NUMBERS, deadline_s=1.0)
    assert stopped.is_set(), "what is not waited for must end"
    assert found.scores == {"0": 1.0}
    assert set(found.failed.values()) == {"not in time"}


async def test_a_file_that_is_gone_or_broken_costs_only_its_own_score() -> None:
    def damaged(name: str) -> bytes:
        if name == "1":
            raise NotFound("there is no file")
        return b"broken" if name == "2" else read(name)

    found = await matched(Judge(), ["0", "1", "2", "3"], damaged)
    assert found.scores == {"0": 0.0, "3": 3.0}
    assert found.failed == {"1": "there is no file", "2": "cannot be decoded"}


async def test_scores_of_other_weights_are_not_mixed() -> None:
    judge = Judge(held=["0"])
    judge.answer = lambda images: None if images[0][1] is None else Matched(OTHER, [9.0] * len(images))
    found = await matched(judge, ["0", "1"])
    assert (found.scores, found.version) == ({"0": 0.0}, INFO.matching)
    assert found.failed == {"1": "the model is being replaced"}


async def test_a_model_that_is_away_leaves_the_first_order_and_says_why() -> None:
    async def away() -> Matcher:
        raise ModelUnavailable("blip2 is not available")

    found = await match_images(away(), "red", ["0", "1"], read, LONG_S)
    assert (found.scores, found.version) == ({}, None)
    assert found.failed == dict.fromkeys(["0", "1"], "blip2 is not available")


async def test_a_bug_of_the_encoder_leaves_the_first_order() -> None:
    judge = Judge()

    def bug(_: list[NamedFile]) -> None:
        raise RuntimeError("a bug")

    judge.answer = bug
    found = await matched(judge, ["0"])
    assert "internal error" in found.failed["0"]


async def test_a_model_without_a_head_is_an_error_also_where_nothing_is_found() -> None:
    async def headless() -> Matcher:
        raise InvalidInput("model 'openclip' has no matching head")

    with pytest.raises(InvalidInput, match="no matching head"):
        await match_images(headless(), "red", [], read, LONG_S)
