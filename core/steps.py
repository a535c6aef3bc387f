"""One order of fused products for pages of any depth.

Fusing deeper lists changes ranks and scores, so a page cut from a deeper fusion would repeat or miss
products of the page before. So the order is made in steps: the first products come from a fusion of short
lists, what follows them from longer lists, and a deeper page begins as a shallower one does. Scores fall
within a step only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from core.types import Hit

MINIMUM_DEPTH = 64
"""Products asked of each list at least: fusion is poor when lists barely overlap."""
_GROWTH = 4

Lists = Mapping[str, Sequence[Hit]]


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
    """The lists as they were when asked for `depth` products."""
    return {name: hits[:depth] for name, hits in lists.items()}


def candidates(asked: Lists, scored: Lists, depth: int) -> Lists:
    """Of the scored products, those that the lists asked for `depth` products hold."""
    held = {hit.product_id for hits in asked.values() for hit in hits[:depth]}
    return {name: [hit for hit in hits if hit.product_id in held] for name, hits in scored.items()}


def _depths() -> Iterator[int]:
    depth = MINIMUM_DEPTH
    while True:
        yield depth
        depth *= _GROWTH
