"""Full pages of distinct products from an engine that only ranks pictures.

`group_by` of the engines returns too few groups when one product has many near-identical pictures, and
no search returns more than 16384 hits. So a page is filled in rounds: each round leaves out the products
that are already found and asks for more hits than the round before.
"""

from collections.abc import Callable, Iterable, Sequence

from core.errors import InvalidInput
from core.types import Hit

MAX_HITS = 16384
"""Largest top-k of a Milvus server (Milvus limits, docs)."""
_GROWTH = 4
_SCORE_DECIMALS = 6
"""Engines differ by some 1e-7 on equal vectors; scores that agree to here are ties."""


def comparable_score(score: float) -> float:
    """Round a cosine similarity so that equal pictures score equally wherever they lie."""
    return round(max(-1.0, min(1.0, score)), _SCORE_DECIMALS)


def full_page(
    search: Callable[[int, Sequence[str]], Sequence[Hit]],
    limit: int,
    exclude_products: Sequence[str] = (),
    *,
    exact: bool,
) -> list[Hit]:
    """Find the `limit` best distinct products, each by its best picture; best first, ties by product id.

    Of equally good pictures the one with the smallest id is shown, however deep the page is.
    `search(count, excluded)` returns up to `count` pictures, best first, of products that are not
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
        _keep_best(found, _settled(hits, count))
        if not hits or (exact and len(hits) < count) or _is_full(found, limit, hits[-1].score):
            return in_order(found.values())[:limit]
        count = min(MAX_HITS, count * _GROWTH)


def _settled(hits: Sequence[Hit], count: int) -> Sequence[Hit]:
    """Without the end of a full answer: what ties with it may go on beyond it, with a better image id.

    When everything ties, the next answer shows more, unless the engine cannot give more.
    """
    if len(hits) < count:
        return hits
    above = [hit for hit in hits if hit.score > hits[-1].score]
    return above or (hits if count == MAX_HITS else [])


def _keep_best(found: dict[str, Hit], hits: Sequence[Hit]) -> None:
    for hit in hits:
        best = found.get(hit.product_id)
        if best is None or (-hit.score, hit.image_id) < (-best.score, best.image_id):
            found[hit.product_id] = hit


def _is_full(found: dict[str, Hit], limit: int, last_score: float) -> bool:
    """A page is full when what was not seen can no longer tie with its last product."""
    return len(found) >= limit and last_score < in_order(found.values())[limit - 1].score


def in_order(hits: Iterable[Hit]) -> list[Hit]:
    """Sort best first, ties by product id."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.product_id))
