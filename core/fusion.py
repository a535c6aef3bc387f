"""Fusion: of vectors into one, and of ranked lists of products into one order for pages of any depth.

Fusing deeper lists changes ranks and scores, so a page cut from a deeper fusion would repeat or miss products of
the page before. So the order is made in steps. The first products come from a fusion of short lists, the next from
longer lists, and a deeper page begins as a shallower one does. Scores fall within a step only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.errors import InvalidInput
from core.types import Hit, Vector

Fusion = Literal["rrf", "weighted"]
Lists = Mapping[str, Sequence[Hit]]
"""Distinct products by the name of a list, best first."""

RRF_K = 60
"""Constant of Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion …", SIGIR 2009."""


def relative_weights(weights: Sequence[float]) -> NDArray[np.float64]:
    """Scale weights so that the largest in magnitude is 1 or -1, float64 (n,); zeros stay zeros.

    Only their proportions mean something, and no sum of scaled ones overflows or vanishes.
    """
    given = np.asarray(weights, np.float64)
    largest = np.abs(given).max(initial=0.0)
    return given / largest if largest > 0 else given


def weighted_mean(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """Combine unit vectors into one: float32 (dimension,), the L2-normalized weighted sum.

    Raises:
        InvalidInput: the weighted vectors cancel out and point nowhere.
    """
    total = np.einsum("n,nd->d", relative_weights(weights), np.stack(vectors).astype(np.float64))
    norm = float(np.linalg.norm(total))
    if norm < 1e-6:
        raise InvalidInput("the weighted parts of the query cancel out; change a weight").at("query")
    unit: Vector = (total / norm).astype(np.float32)
    return unit


def normalized_weights(weights: Mapping[str, float], members: Sequence[str]) -> dict[str, float]:
    """Scale the members' weights to sum to 1; a member without a weight counts as 1."""
    chosen = relative_weights([weights.get(name, 1.0) for name in members])
    shares = chosen / total if (total := chosen.sum()) > 0 else chosen
    return dict(zip(members, shares.tolist(), strict=True))


def fuse_rrf(lists: Lists, weights: Mapping[str, float]) -> list[Hit]:
    """Fuse by weighted reciprocal rank: a product scores the sum of w / (60 + rank), rank from 1.

    Each list holds distinct products, best first. The image shown for a product is the one from the
    list that contributes most. Best first, ties by product id.
    """
    return _fuse(
        {
            name: [(hit, weights[name] / (RRF_K + rank)) for rank, hit in enumerate(hits, start=1)]
            for name, hits in lists.items()
        }
    )


def fuse_weighted(lists: Lists, weights: Mapping[str, float]) -> list[Hit]:
    """Fuse by the weighted sum of min-max normalized scores (convex combination, arXiv 2210.11934).

    Each list's scores are scaled to [0, 1] within the list, because cosine similarities of different
    models have different ranges. When every list scores every candidate, the sum is exact: scaling is a
    linear map per model and query, the same for all candidates. A candidate that a list does not hold
    counts as its last. Best first, ties by product id.
    """
    return _fuse(
        {
            name: [(hit, weights[name] * scaled) for hit, scaled in zip(hits, _min_max(hits), strict=True)]
            for name, hits in lists.items()
        }
    )


def _min_max(hits: Sequence[Hit]) -> list[float]:
    if not hits:
        return []
    low, high = min(hit.score for hit in hits), max(hit.score for hit in hits)
    spread = high - low
    return [(hit.score - low) / spread if spread > 0 else 1.0 for hit in hits]


def _fuse(contributions: Mapping[str, Sequence[tuple[Hit, float]]]) -> list[Hit]:
    totals: dict[str, float] = {}
    best: dict[str, tuple[float, Hit]] = {}
    for scored in contributions.values():
        for hit, contribution in scored:
            totals[hit.product_id] = totals.get(hit.product_id, 0.0) + contribution
            if hit.product_id not in best or contribution > best[hit.product_id][0]:
                best[hit.product_id] = (contribution, hit)
    fused = [replace(best[product_id][1], score=total) for product_id, total in totals.items()]
    return sorted(fused, key=lambda hit: (-hit.score, hit.product_id))


MINIMUM_DEPTH = 64
"""Least number of products asked of each list: fusion is poor when lists barely overlap."""
_GROWTH = 4


def fusion_depth(limit: int) -> int:
    """Products to ask of each list, at least twice the limit."""
    return next(depth for depth in _depths() if depth >= 2 * limit)


def fuse_in_steps(
    limit: int, at_depth: Callable[[int], Lists], fuse: Callable[[Lists], list[Hit]]
) -> list[Hit]:
    """Order products by fusing the lists `at_depth` of each step up to `fusion_depth(limit)`.

    A step places as many products, with those of the steps before, as half of its depth; the last one
    places all that are left.
    """
    placed: dict[str, Hit] = {}
    for depth in _depths():
        last = depth >= 2 * limit
        for hit in fuse(at_depth(depth)):
            if not last and len(placed) == depth // 2:
                break
            placed.setdefault(hit.product_id, hit)
        if last:
            return list(placed.values())
    raise AssertionError("depths never end")


def beginnings(lists: Lists, depth: int) -> Lists:
    """Cut the lists to what they were when asked for `depth` products."""
    return {name: hits[:depth] for name, hits in lists.items()}


def candidates(asked: Lists, scored: Lists, depth: int) -> Lists:
    """Keep the scored products that one of the lists holds when asked for `depth` products."""
    held = {hit.product_id for hits in asked.values() for hit in hits[:depth]}
    return {name: [hit for hit in hits if hit.product_id in held] for name, hits in scored.items()}


def _depths() -> Iterator[int]:
    depth = MINIMUM_DEPTH
    while True:
        yield depth
        depth *= _GROWTH
