"""Second stage of a search: a matching head re-ranks the best products of the first.

The head judges text and image together, so it orders better than vectors do. It takes a pass for each pair, so it
is asked about the first products only.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from core.concurrency import batched, batched_by_bytes
from core.errors import InvalidInput, Unavailable, VitrineError, expected
from core.ports import EncoderClient
from core.types import Hit, Matched, NamedFile

IMAGES_A_CALL = 8
"""Most image files of one call: what is scored before the deadline counts."""
CALLS_AT_ONCE = 2
"""Calls with files that are under way: one's files are read and decoded while the model works on the other's."""
_LATE = "not in time"
_REPLACED = "the model is being replaced"


@dataclass(frozen=True, slots=True)
class Rerank:
    """The second stage that a query asks for: the model, and how many products of the first stage it judges."""

    model: str
    depth: int = 50


@dataclass(frozen=True, slots=True)
class Reranked:
    """Outcome of the second stage for one list.

    `scores` are by product. `skipped` counts the candidates that kept their place, by the reason. `version` is the
    fingerprint of what makes the scores; None where nothing was scored.
    """

    rerank: Rerank
    version: str | None
    scores: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Matcher(EncoderClient, Protocol):
    """An encoder that may have a matching head."""

    async def match(self, text: str, images: Sequence[NamedFile]) -> Matched:
        """Score how well a text fits images; those without a file are scored where their features are cached.

        Raises:
            UnsupportedModality: the encoder has no matching head.
            ModelUnavailable: no replica answers.
            DeadlineExceeded: the encoder took too long.
        """


@dataclass(slots=True)
class Matches:
    """Scores of images by the sha256 of their files, all of one version, and the reasons of those without."""

    version: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


async def match_images(
    matcher: Awaitable[Matcher],
    text: str,
    images: Sequence[str],
    read: Callable[[str], bytes],
    deadline_s: float,
) -> Matches:
    """Score as many of these images as the deadline allows, the first ones first.

    `images` are the distinct sha256 of files. Features that the encoder holds need no file. The other files come
    from `read`, which blocks and may raise.

    Raises:
        InvalidInput: there is no such encoder, or it has no matching head.
    """
    matches, reason = Matches(), _LATE
    try:
        async with asyncio.timeout(deadline_s):
            reason = await _match_all(matches, await matcher, text, images, read) or _LATE
    except TimeoutError:
        pass
    except Unavailable as error:
        reason = error.message
    for each in images:
        if each not in matches.scores:
            matches.failed.setdefault(each, reason)
    return matches


async def _match_all(
    matches: Matches, matcher: Matcher, text: str, images: Sequence[str], read: Callable[[str], bytes]
) -> str | None:
    """Fill `matches`; returns why the work ended before it was done, or None."""
    try:
        if images:
            _take(matches, images, await matcher.match(text, [(each, None) for each in images]))
    except InvalidInput:
        raise
    except Exception as error:
        return _reason(error)
    lacking = [each for each in images if each not in matches.scores and each not in matches.failed]
    ahead = batched(lacking, IMAGES_A_CALL)
    reasons = await asyncio.gather(
        *(_match_some(matches, matcher, text, ahead, read) for _ in range(CALLS_AT_ONCE))
    )
    return next((reason for reason in reasons if reason is not None), None)


async def _match_some(
    matches: Matches, matcher: Matcher, text: str, ahead: Iterator[list[str]], read: Callable[[str], bytes]
) -> str | None:
    """Send the files of one batch after another; returns why it ended before there were no more, or None."""
    for batch in ahead:
        files: list[tuple[str, bytes]] = []
        found = await asyncio.gather(
            *(asyncio.to_thread(read, each) for each in batch), return_exceptions=True
        )
        for sha256, data in zip(batch, found, strict=True):
            if isinstance(data, bytes):
                files.append((sha256, data))
            elif isinstance(data, Exception):
                matches.failed[sha256] = _reason(data)
            else:
                raise data
        try:
            for some in batched_by_bytes(files, lambda each: len(each[1])):
                _take(matches, [sha256 for sha256, _ in some], await matcher.match(text, some))
        except Exception as error:
            return _reason(error)
    return None


def _reason(error: Exception) -> str:
    return expected(error, "re-ranking").message


def _take(matches: Matches, images: Sequence[str], matched: Matched) -> None:
    if matches.version is None:
        matches.version = matched.info.matching
    # Scores of other weights cannot be compared.
    is_same = matched.info.matching == matches.version
    for sha256, score in zip(images, matched.scores, strict=True):
        if isinstance(score, VitrineError):
            matches.failed[sha256] = score.message
        elif score is not None and is_same:
            matches.scores[sha256] = score
        elif score is not None:
            matches.failed[sha256] = _REPLACED


def rerank_hits(
    hits: Sequence[Hit], rerank: Rerank, images: Mapping[str, str], matches: Matches
) -> tuple[list[Hit], Reranked]:
    """Order the first `rerank.depth` hits by their scores, best first; `images` are the sha256 by product.

    What has no score keeps its place, and the others share the places that are left. Equal scores keep the order of
    the first stage. So a page of any depth is cut from the same order.
    """
    candidates = hits[: rerank.depth]
    scores = {
        hit.product_id: matches.scores[sha256]
        for hit in candidates
        if (sha256 := images[hit.product_id]) in matches.scores
    }
    skipped = Counter(
        matches.failed.get(images[hit.product_id], _LATE)
        for hit in candidates
        if hit.product_id not in scores
    )
    scored = [hit for hit in candidates if hit.product_id in scores]
    best_first = iter(sorted(scored, key=lambda hit: -scores[hit.product_id]))
    ordered = [next(best_first) if hit.product_id in scores else hit for hit in candidates]
    return [*ordered, *hits[rerank.depth :]], Reranked(rerank, matches.version, scores, dict(skipped))
