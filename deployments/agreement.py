"""How far two lists of products agree: in what they hold, and in its order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two models' lists: how many products both hold, of how many, and the correlation of their ranks."""

    models: tuple[str, str]
    shared: int
    jaccard: float | None
    rank_correlation: float | None


def agreement(models: tuple[str, str], pages: tuple[Sequence[str], Sequence[str]]) -> Agreement:
    """Compare two lists of distinct products, best first.

    `jaccard` is shared / union, None when both are empty. `rank_correlation` is that of `correlate_ranks`.
    """
    shared, union = set(pages[0]) & set(pages[1]), set(pages[0]) | set(pages[1])
    jaccard = len(shared) / len(union) if union else None
    return Agreement(models, len(shared), jaccard, correlate_ranks(*pages))


def correlate_ranks(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Kendall's tau-b of the ranks of all products that either list holds, in [-1, 1].

    A product that a list lacks is behind its last, tied with the others that it lacks, as in Fagin, Kumar
    and Sivakumar, "Comparing top k lists", SIAM J. Discrete Math. 17(1), 2003. So 1 is the same list, -1
    the reverse, and lists without a common product come to about -2/3. None where a list ranks nothing:
    it is empty, or the union is one product.
    """
    # Here, since it takes 80 MB and a second to load, and most gateways never compare.
    from scipy.stats import kendalltau

    products = list(dict.fromkeys([*first, *second]))
    if len(products) < 2 or not first or not second:
        return None
    ranks = []
    for page in (first, second):
        places = {product_id: rank for rank, product_id in enumerate(page)}
        ranks.append([places.get(product_id, len(page)) for product_id in products])
    tau = float(kendalltau(*ranks, variant="b").statistic)
    return None if math.isnan(tau) else tau
