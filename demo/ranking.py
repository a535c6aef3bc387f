"""Ranked products: how a model orders them, and how good the order is."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray

from core.types import Hit

DEPTH = 50
"""Products that a model hands to a fusion."""


def ranked_products(scores: NDArray[np.float32], owners: Sequence[str]) -> list[Hit]:
    """The best products by their best picture; `scores` are of the pictures, `owners` their product ids."""
    hits: dict[str, Hit] = {}
    for place in np.argsort(-scores, kind="stable"):
        product_id = owners[place]
        if product_id not in hits:
            hits[product_id] = Hit(f"{product_id}/{place}", 1, product_id, float(scores[place]))
        if len(hits) == DEPTH:
            break
    return list(hits.values())


def precision(found: Sequence[str], relevant: AbstractSet[str], k: int = 10) -> float:
    """Share of relevant products among the first `k`, or among as many as there are relevant ones.

    Plain precision at 10 cannot exceed 0.3 where three products fit.
    """
    places = min(k, len(relevant))
    return sum(product_id in relevant for product_id in found[:places]) / places


def ndcg(found: Sequence[str], grades: Mapping[str, int], k: int = 10) -> float:
    """Normalised discounted cumulative gain at `k` with gains 2^grade - 1 (Burges et al., ICML 2005)."""
    ideal = _gain(sorted(grades.values(), reverse=True)[:k])
    return _gain([grades.get(product_id, 0) for product_id in found[:k]]) / ideal


def _gain(grades: Sequence[int]) -> float:
    return float(sum((2**grade - 1) / np.log2(place + 2) for place, grade in enumerate(grades)))
