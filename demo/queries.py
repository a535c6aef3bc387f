"""Labelled queries on the synthetic catalogue: words and new pictures, and the products that answer them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from demo.captions import caption
from demo.catalog import demo_looks, jpeg
from demo.looks import Look

_GARMENT = ("type", "colour", "pattern")


@dataclass(frozen=True, slots=True)
class DemoQuery:
    """Words or the picture of a garment that is not in the catalogue, with graded product ids.

    `grades` counts the attributes that a product shares with what was asked, leaving out products that
    share none; `relevant` are the products that share all, of which there is at least one.
    """

    words: str | None
    picture: bytes | None
    grades: dict[str, int]
    relevant: frozenset[str]


def word_queries(seed: int, products: int) -> list[DemoQuery]:
    """Every pair of colour and type that the catalogue holds, as in "red dress", in order of appearance."""
    looks = demo_looks(seed, products)
    asked = dict.fromkeys((look.type, look.colour) for look in looks.values())
    shown = {(look.type, look.colour): look for look in looks.values()}
    return [
        _query(
            shown[pair], ("type", "colour"), looks.items(), words=caption(shown[pair], ["colour"], prefix="")
        )
        for pair in asked
    ]


def picture_queries(seed: int, products: int, count: int = 200) -> list[DemoQuery]:
    """New garments like products of the catalogue, each of its own proportions, dye, print and photograph."""
    looks = demo_looks(seed, products)
    rng = np.random.default_rng((seed, 6))
    queries = []
    for number, place in enumerate(rng.integers(len(looks), size=count)):
        look = list(looks.values())[place]
        item, photograph = (np.random.SeedSequence((seed, kind, number)) for kind in (7, 8))
        queries.append(_query(look, _GARMENT, looks.items(), picture=jpeg(look, item, photograph)))
    return queries


def _query(
    look: Look,
    attributes: Sequence[str],
    looks: Iterable[tuple[str, Look]],
    words: str | None = None,
    picture: bytes | None = None,
) -> DemoQuery:
    shared = {
        product_id: sum(getattr(other, name) == getattr(look, name) for name in attributes)
        for product_id, other in looks
    }
    grades = {product_id: count for product_id, count in shared.items() if count}
    relevant = frozenset(product_id for product_id, count in grades.items() if count == len(attributes))
    return DemoQuery(words, picture, grades, relevant)
