"""The synthetic catalog: products with titles, attributes and two to four images each."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as pairs
from typing import Any

import numpy as np

from demo.drawing import draw
from demo.garments import BACKGROUNDS, COLORS, PATTERNS, TYPES, Look, description, title

IMAGE_SIZE = 256
"""Width and height of the catalog's images in pixels."""

_BRANDS = ("Alder", "Birch", "Corvo", "Dune", "Elm", "Fjord", "Marlow", "Northing")
_SEASONS = ("spring", "summer", "autumn", "winter")
_BASE_PRICES = {
    "dress": 70, "shirt": 40, "trousers": 60, "skirt": 50, "coat": 140,
    "shorts": 35, "shoe": 90, "bag": 80, "hat": 30, "scarf": 25,
}  # fmt: skip
_PATTERNS_A_PAIR = 2
_JPEG_QUALITY = 88


@dataclass(frozen=True)
class DemoProduct:
    """A product as a shop would send it; `images` are JPEG files."""

    product_id: str
    title: str
    description: str
    attributes: dict[str, Any]
    images: tuple[bytes, ...]

    @property
    def look(self) -> Look:
        """The look that its images were drawn from."""
        return Look(*(self.attributes[name] for name in ("type", "color", "pattern", "background")))


def demo_products(seed: int, count: int) -> Iterator[DemoProduct]:
    """Draw `count` products; the same seed gives the same bytes, and a longer run begins like a shorter one.

    Every hundred products hold each pair of type and color once, in one of the two patterns that the
    pair is made in, so that words find several products and an image finds its near kin.
    """
    for number in range(count):
        yield _product(seed, number)


def demo_looks(seed: int, count: int) -> dict[str, Look]:
    """The looks of the same products by product id, without drawing them."""
    looks = [_look(seed, number) for number in range(count)]
    return {_product_id(look, number): look for number, look in enumerate(looks)}


def _product_id(look: Look, number: int) -> str:
    return f"{look.type}-{look.color}-{look.pattern}-{number:04d}"


def _look(seed: int, number: int) -> Look:
    pair_order = np.random.default_rng((seed, 0)).permutation(len(TYPES) * len(COLORS))
    turn, place = divmod(number, len(pair_order))
    garment_type, color = list(pairs(TYPES, COLORS))[pair_order[place]]
    made_in = np.random.default_rng((seed, 1, int(pair_order[place]))).permutation(len(PATTERNS))
    pattern = PATTERNS[made_in[turn % _PATTERNS_A_PAIR]]
    background = BACKGROUNDS[np.random.default_rng((seed, 2, number)).integers(len(BACKGROUNDS))]
    return Look(garment_type, color, pattern, background)


def _product(seed: int, number: int) -> DemoProduct:
    look = _look(seed, number)
    rng = np.random.default_rng((seed, 3, number))
    brand = str(rng.choice(_BRANDS))
    return DemoProduct(
        product_id=_product_id(look, number),
        title=title(look, brand),
        description=description(look, rng),
        attributes={
            "type": look.type,
            "color": look.color,
            "pattern": look.pattern,
            "background": look.background,
            "brand": brand,
            "season": str(rng.choice(_SEASONS)),
            "price": round(float(_BASE_PRICES[look.type] * rng.uniform(0.6, 1.8)), 2),
            "in_stock": bool(rng.random() < 0.85),
        },
        images=tuple(_image(look, seed, number, view) for view in range(rng.integers(2, 5))),
    )


def _image(look: Look, seed: int, number: int, view: int) -> bytes:
    item, photograph = (
        np.random.SeedSequence((seed, 4, number)),
        np.random.SeedSequence((seed, 5, number, view)),
    )
    return jpeg(look, item, photograph)


def jpeg(look: Look, item: np.random.SeedSequence, photograph: np.random.SeedSequence) -> bytes:
    """Draw an image at the catalog's size as a JPEG file; `draw` says what the two seeds decide."""
    file = io.BytesIO()
    draw(look, IMAGE_SIZE, item, photograph).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
