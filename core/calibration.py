"""How near is near: a smallest score, such that a search for what the catalogue lacks finds nothing.

The null distribution is that of the *best unrelated product*, since a search shows the best of all N
products and not a random one. It is made of the catalogue itself: a sample of its products asks for the
others, in the form of the query (pictures, titles, or their weighted mean, since scores of words lie in
another range than those of pictures). A product and its nearest relatives are taken for a share of the
catalogue, and what it finds beyond them is unrelated. The threshold is the conformal quantile of these
scores. A larger share finds more, and keeps the rate for queries that are less strange.

A query as strange to the catalogue as a product without its relatives then gets any answer at all with a
chance of at most the rate. That is the false positive identification rate of ISO/IEC 19795-1, a rate per
answer and not per product; the quantile is that of Vovk et al., "Algorithmic Learning in a Random World",
2005, with 1 / (n + 1) as the smallest rate that n products can tell. Queries of a kind that no product is
(noise, say) are outside of the promise.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import Conflict
from core.types import SCORE_TOLERANCE, Modality, Vector
from core.vectors import relative_weights

Form = tuple[tuple[Modality, float], ...]
"""What a query is made of: the modality and the weight of each part."""
Scores = NDArray[np.float64]

MINIMUM_PRODUCTS = 100
"""Below this the relatives, one in a hundred, cannot be told from the rest."""
_ABOVE = 3 * SCORE_TOLERANCE
"""How far a threshold lies above the best score that is no match: one tolerance each since

- a store may find that score higher;
- products that tie get the score of the best of them;
- a score within the tolerance of a threshold reaches it.
"""


@dataclass(frozen=True, slots=True)
class NullSample:
    """A random sample of n products in one model version's space; all vectors are float32 unit rows.

    `pictures` (m, dimension) has the products' pictures one product after the other, `starts` (n,) the row
    of each product's first; `words` (n, dimension) has their titles, and `worded` (n,) says which have one.
    """

    pictures: Vector
    starts: NDArray[np.int64]
    words: Vector
    worded: NDArray[np.bool_]


def null_scores(sample: NullSample, form: Form, related_share: float) -> Scores:
    """The best score of an unrelated product, for each product that can ask in this form; ascending.

    Raises:
        Conflict: fewer than `MINIMUM_PRODUCTS` can.
    """
    needs_words = any(modality == "text" for modality, _ in form)
    askers = np.flatnonzero(sample.worded) if needs_words else np.arange(len(sample.starts))
    if len(askers) < MINIMUM_PRODUCTS:
        kind = "indexed pictures and a title" if needs_words else "indexed pictures"
        raise Conflict(
            f"no rate can be kept yet: it takes {MINIMUM_PRODUCTS} products with {kind}, and there are "
            f"{len(askers)}; give a `score_threshold` of one model instead"
        ).at("max_false_match_rate")
    scores = _queries(sample, askers, form) @ sample.pictures.T
    best = np.maximum.reduceat(scores, sample.starts, axis=1)
    best[np.arange(len(askers)), askers] = -np.inf
    place = best.shape[1] - max(1, math.ceil(related_share * best.shape[1]))
    unrelated = np.partition(best, place, axis=1)[:, place]
    return np.sort(unrelated.astype(np.float64))


def smallest_match(null: Scores, rate: float) -> float:
    """The smallest score that counts as a match, given the ascending null scores.

    Raises:
        Conflict: so many products cannot tell so small a rate.
    """
    rank = math.ceil((len(null) + 1) * (1 - rate) - 1e-9)
    if rank > len(null):
        raise Conflict(
            f"{len(null)} products cannot tell so small a rate for this query; the smallest is "
            f"{1 / (len(null) + 1):.4f} for one model and twice that for the ensemble"
        ).at("max_false_match_rate")
    return float(null[max(rank, 1) - 1]) + _ABOVE


def _queries(sample: NullSample, askers: NDArray[np.int64], form: Form) -> Vector:
    """Ask in the form with each product; what a query pushes away is another product."""
    total = np.zeros((len(askers), sample.pictures.shape[1]))
    weights = relative_weights([weight for _, weight in form])
    for (modality, _), weight in zip(form, weights, strict=True):
        who = askers if weight >= 0 else np.roll(askers, len(askers) // 2)
        rows = sample.words[who] if modality == "text" else sample.pictures[sample.starts[who]]
        total += weight * rows
    lengths = np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    queries: Vector = (total / lengths).astype(np.float32)
    return queries
