"""Fusion of several ranked lists of products into one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.types import Hit
from core.vectors import relative_weights

RRF_K = 60
"""The constant of Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion …", SIGIR 2009."""


def normalised_weights(weights: Mapping[str, float], members: Sequence[str]) -> dict[str, float]:
    """Scale the members' weights to sum to 1; a member without a weight counts as 1."""
    chosen = relative_weights([weights.get(name, 1.0) for name in members])
    shares = chosen / total if (total := chosen.sum()) > 0 else chosen
    return dict(zip(members, shares.tolist(), strict=True))


def fuse_rrf(lists: Mapping[str, Sequence[Hit]], weights: Mapping[str, float]) -> list[Hit]:
    """Fuse by weighted reciprocal rank: a product scores the sum of w / (60 + rank), rank from 1.

    Each list holds distinct products, best first. The picture shown for a product is the one from the
    list that contributes most. Best first, ties by product id.
    """
    return _fuse(
        {
            name: [(hit, weights[name] / (RRF_K + rank)) for rank, hit in enumerate(hits, start=1)]
            for name, hits in lists.items()
        }
    )


def fuse_weighted(lists: Mapping[str, Sequence[Hit]], weights: Mapping[str, float]) -> list[Hit]:
    """Fuse by the weighted sum of min-max normalised scores (convex combination, arXiv 2210.11934).

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
