"""The ensemble combiner: parallel members, deadlines, members that are away."""

import asyncio
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from core.ensemble import EnsembleSearch
from core.errors import Internal, InvalidInput, ModelUnavailable, UnsupportedModality
from core.fusion import MINIMUM_DEPTH, Fusion
from core.search import ModelSearch, QueryPart, QueryVector, SearchQuery, SearchResult
from core.types import EncoderInfo, Hit

QUERY = SearchQuery((QueryPart("red"),), limit=3)


class Member:
    """Finds these products, or fails with this error, after a delay."""

    score_s = 0.0

    def __init__(
        self, name: str, products: str = "", delay_s: float = 0.0, error: Exception | None = None
    ) -> None:
        self.name, self.products, self.delay_s, self.error = name, products, delay_s, error
        self.asked = self.limit = 0

    async def search(self, query: SearchQuery) -> SearchResult:
        self.asked += 1
        self.limit = query.limit
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        hits = [Hit(f"i-{p}", 1, p, 1.0 - n / 10) for n, p in enumerate(self.products)]
        used = EncoderInfo(self.name, "fake", "", "0" * 12, 4, ("image", "text"), "fp32", "cpu")
        embedded = {self.name: QueryVector(used, np.ones(4, np.float32))}
        return SearchResult(hits[: query.limit], [used], timings_ms={"search": 1.0}, embedded=embedded)

    async def score(self, *_: object) -> list[Hit]:
        await asyncio.sleep(self.score_s)
        return []

    async def reach(self) -> None:
        await asyncio.sleep(self.delay_s)


def ensemble(*members: Member, deadline_s: float) -> EnsembleSearch:
    return EnsembleSearch({member.name: cast(ModelSearch, member) for member in members}, deadline_s)


BLIND = Member("images", error=UnsupportedModality("images only"))


class JumpingLoop(asyncio.SelectorEventLoop):
    """Sets its clock to the next timer as soon as nothing else is to do, so that no test waits."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        timers = [each.when() for each in self._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
        if timers and not self._ready:  # type: ignore[attr-defined]
            self.now = max(self.now, min(timers))
        super()._run_once()  # type: ignore[misc]


def run(
    *members: Member,
    weights: dict[str, float] | None = None,
    deadline_s: float = 30.0,
    not_asked: dict[str, str] | None = None,
    fusion: Fusion = "rrf",
) -> SearchResult:
    query = replace(QUERY, weights=weights, not_asked=not_asked or {}, fusion=fusion)
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        result = runner.run(ensemble(*members, deadline_s=deadline_s).search(query))
        assert runner.get_loop().time() <= deadline_s
    return result


def test_members_are_fused_and_named() -> None:
    result = run(Member("a", "xyz"), Member("b", "yxw"))
    assert [hit.product_id for hit in result.hits] == ["x", "y", "w"]
    assert [used.name for used in result.versions] == ["a", "b"]
    assert not result.degraded


def test_a_late_member_is_left_out_and_the_answer_says_so() -> None:
    result = run(Member("a", "xyz"), Member("slow", "wvu", delay_s=60), deadline_s=2)
    assert [hit.product_id for hit in result.hits] == ["x", "y", "z"]
    assert result.degraded
    assert "2 s" in result.skipped["slow"]
    assert result.weights == {"a": 1.0}


@pytest.mark.parametrize("score_s", [0.25, 60])
def test_lists_and_scores_share_one_deadline_whoever_is_late(score_s: float) -> None:
    prompt, slow, late = Member("prompt", "xyz"), Member("slow", "wvu", 1.4), Member("late", "t", 60)
    prompt.score_s = slow.score_s = score_s
    result = run(prompt, slow, late, fusion="weighted", deadline_s=2)
    assert list(result.weights) == ["prompt", "slow"]
    assert list(result.skipped) == ["late"]
    assert list(result.incomplete) == ([] if score_s < 1 else ["prompt", "slow"])


def test_a_member_that_cannot_read_text_is_skipped_without_degrading() -> None:
    result = run(Member("a", "xyz"), BLIND)
    assert result.skipped == {"images": "images only"}
    assert not result.degraded


def test_a_member_that_is_known_to_be_unable_is_not_asked() -> None:
    blind, stranger = Member("blind", "wvu"), {"nobody": "is no member"}
    result = run(Member("a", "xyz"), blind, not_asked={"blind": "blind does not take texts"} | stranger)
    assert blind.asked == 0
    assert [hit.product_id for hit in result.hits] == ["x", "y", "z"]
    assert result.skipped == {"blind": "blind does not take texts"}
    assert not result.degraded
    with pytest.raises(UnsupportedModality, match="blind does not take texts"):
        run(blind, not_asked={"blind": "blind does not take texts"})


def test_a_bug_of_one_member_leaves_the_answer_to_the_others_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = Member("broken", error=ZeroDivisionError("a bug of ours"))
    result = run(Member("a", "xyz"), broken)
    assert [hit.product_id for hit in result.hits] == ["x", "y", "z"]
    assert result.degraded
    assert "internal error" in result.skipped["broken"]
    assert "Traceback" in caplog.text
    assert "ZeroDivisionError: a bug of ours" in caplog.text
    with pytest.raises(Internal):
        run(broken, BLIND)
    with pytest.raises(ModelUnavailable):
        run(broken, Member("away", error=ModelUnavailable("waiting helps")))


def test_a_member_with_weight_zero_is_not_asked() -> None:
    idle = Member("idle", "w")
    run(Member("a", "x"), idle, weights={"idle": 0.0})
    assert idle.asked == 0


def test_one_member_alone_is_asked_for_no_more_than_the_page() -> None:
    alone, first, second = Member("a", "xyzw"), Member("a", "xyzw"), Member("b", "wzyx")
    assert [hit.product_id for hit in run(alone).hits] == ["x", "y", "z"]
    run(first, second)
    assert alone.limit == 3
    assert first.limit == second.limit == MINIMUM_DEPTH


def test_when_nobody_answers_the_error_is_the_most_actionable() -> None:
    members = [Member("a", error=ModelUnavailable("away")), BLIND]
    for order in (members, members[::-1]):
        with pytest.raises(ModelUnavailable, match="away"):
            run(*order)


def test_an_ensemble_without_weight_says_so() -> None:
    with pytest.raises(InvalidInput, match="weight above 0"):
        run(Member("a", "x"), weights={"a": 0.0})


def test_only_the_first_search_waits_for_a_member_that_is_away() -> None:
    async def searched() -> list[SearchResult]:
        waiting = Member("waiting", "wvu", delay_s=60)
        both = ensemble(Member("a", "xyz"), waiting, deadline_s=2)
        first, second = [await both.search(QUERY) for _ in range(2)]
        assert waiting.asked == 1
        assert asyncio.get_running_loop().time() == 2
        waiting.delay_s = 0
        await asyncio.sleep(60)
        return [first, second, await both.search(QUERY)]

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        first, second, last = runner.run(searched())
    assert first.degraded
    assert second.degraded
    assert "did not answer within 2 s" in first.skipped["waiting"]
    assert "asked again" in second.skipped["waiting"]
    assert not last.degraded
    assert last.weights.keys() == {"a", "waiting"}
