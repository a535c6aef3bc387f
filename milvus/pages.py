"""Full pages of distinct products from an engine that only ranks images.

`group_by` of the engines returns too few groups when one product has many near-identical images, and
no search returns more than 16384 hits. So a page is filled in rounds: each round leaves out the products
that were found and asks for more hits than the round before.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from core.errors import InvalidInput
from core.types import SCORE_TOLERANCE, Hit

MAX_HITS = 16384
"""Largest top-k of a Milvus server (Milvus limits, docs)."""
_GROWTH = 4


def clamped(score: float) -> float:
    """Put a cosine similarity of an engine, which may be 1.0000001, into [-1, 1]."""
    return max(-1.0, min(1.0, score))


def full_page(
    search: Callable[[int, Sequence[str]], Sequence[Hit]],
    limit: int,
    exclude_products: Sequence[str] = (),
    *,
    exact: bool,
) -> list[Hit]:
    """Find the `limit` best distinct products, each by its best image, `in_order`.

    `search` and `exact` are those of `nearest_products`.

    Raises:
        InvalidInput: the limit is not positive.
    """
    return in_order(nearest_products(search, limit, exclude_products, exact=exact))[:limit]


def nearest_products(
    search: Callable[[int, Sequence[str]], Sequence[Hit]],
    limit: int,
    exclude_products: Sequence[str] = (),
    *,
    exact: bool,
) -> list[Hit]:
    """Find at least the `limit` best distinct products with all that tie with them, as far as there are any.

    `search(count, excluded)` returns up to `count` images, best first, of products that are not
    excluded. With an `exact` engine fewer than `count` means that there are no more; with an approximate
    one only an empty answer does.

    Raises:
        InvalidInput: the limit is not positive.
    """
    if limit < 1:
        raise InvalidInput(f"the limit {limit} is not positive").at("limit")
    found: dict[str, Hit] = {}
    count = min(MAX_HITS, 3 * limit + 20)
    while True:
        hits = search(count, [*exclude_products, *found])
        found |= _settled(hits, count)
        if not hits or (exact and len(hits) < count) or _is_full(found, limit, hits[-1].score):
            return list(found.values())
        count = min(MAX_HITS, count * _GROWTH)


def best_images(hits: Iterable[Hit]) -> dict[str, Hit]:
    """Find the best score of each product; the image shown is the one of the smallest id that ties with it."""
    best: dict[str, Hit] = {}
    for hit in sorted(hits, key=lambda hit: -hit.score):
        shown = best.setdefault(hit.product_id, hit)
        if hit.image_id < shown.image_id and shown.score - hit.score <= SCORE_TOLERANCE:
            best[hit.product_id] = _scored(hit, shown.score)
    return best


def in_order(hits: Iterable[Hit]) -> list[Hit]:
    """Sort products best first, ties by product id.

    From the best down, products within the tolerance of the first of them tie, and get its score. So equal
    vectors tie although an engine's scores of them differ, by another amount in each answer.
    """
    tied: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: -hit.score):
        ties = tied and tied[-1].score - hit.score <= SCORE_TOLERANCE
        tied.append(_scored(hit, tied[-1].score) if ties else hit)
    return sorted(tied, key=lambda hit: (-hit.score, hit.product_id))


def _scored(hit: Hit, score: float) -> Hit:
    # Not `replace`, which takes several times as long: thousands may tie.
    return Hit(hit.image_id, hit.revision, hit.product_id, score)


def _settled(hits: Sequence[Hit], count: int) -> dict[str, Hit]:
    """Leave out the end of a full answer: what ties with it may go on beyond it, with a better image id.

    When everything ties, the next answer shows more, unless the engine cannot give more.
    """
    best = best_images(hits)
    if len(hits) < count:
        return best
    end = hits[-1].score + SCORE_TOLERANCE
    above = {product_id: hit for product_id, hit in best.items() if hit.score > end}
    return above or (best if count == MAX_HITS else {})


def _is_full(found: dict[str, Hit], limit: int, last_score: float) -> bool:
    """Check that no unseen image, which may score a little more in the next answer, ties with the page."""
    if len(found) < limit:
        return False
    # What `in_order` gives the last of the page: the score of the first that it ties with.
    last = math.inf
    for score in sorted((hit.score for hit in found.values()), reverse=True)[:limit]:
        if last - score > SCORE_TOLERANCE:
            last = score
    return last_score + 2 * SCORE_TOLERANCE < last
