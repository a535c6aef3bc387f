"""Which found products are near enough to be shown."""

from collections.abc import Mapping, Sequence

from core.errors import ModelUnavailable
from core.types import SCORE_TOLERANCE, Hit


def matching(
    hits: Sequence[Hit],
    found: Mapping[str, tuple[str, Sequence[Hit]]],
    weights: Mapping[str, float],
    minimum_scores: Mapping[str, float],
) -> list[Hit]:
    """Keep the hits that models with more than half of the weight call a match, in their order.

    `found` is in which collection each model has searched, and what it has found with cosines;
    `minimum_scores` are cosines by collection, reached within the tolerance of scores, and a model without
    one matches nothing. When each model
    is wrong at most at rate r, the majority is wrong at most at 2 r, however the models depend on each
    other: the weight that is wrong is r on average, and above 1/2 at most 2 r of the time (Markov's
    inequality; Vovk and Wang, "Combining p-values via averaging", Biometrika 2020).

    Raises:
        ModelUnavailable: none of them has one, as while versions change.
    """
    if not any(collection in minimum_scores for collection, _ in found.values()):
        raise ModelUnavailable("no model that answered has a threshold of its version; try again shortly")
    votes: dict[str, float] = {}
    for name, (collection, scored) in found.items():
        minimum = minimum_scores.get(collection, float("inf"))
        for hit in scored:
            if hit.score >= minimum - SCORE_TOLERANCE:
                votes[hit.product_id] = votes.get(hit.product_id, 0.0) + weights[name]
    half = sum(weights.values()) / 2
    return [hit for hit in hits if votes.get(hit.product_id, 0.0) > half + 1e-9]
