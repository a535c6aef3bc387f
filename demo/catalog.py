"""The synthetic catalog: products with titles, attributes and two to four images each."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as pairs
from typing import Any

import numpy as np

from demo.drawing import draw
from demo.garments import BACKGROUNDS, COLORS, PATTERNS, TYPES, Design, description, title

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
    def design(self) -> Design:
        """Design that its images were drawn from."""
        return Design(*(self.attributes[name] for name in ("type", "color", "pattern", "background")))


def demo_products(seed: int, count: int) -> Iterator[DemoProduct]:
    """Draw `count` products; the same seed gives the same bytes, and a longer run begins like a shorter one.

    Every hundred products hold each pair of type and color once. A pair comes in two patterns, so a text finds
    several products and an image finds similar ones.
    """
    for number in range(count):
        yield _product(seed, number)


def demo_designs(seed: int, count: int) -> dict[str, Design]:
    """Return the designs of the same products by product id, without drawing them."""
    designs = [_design(seed, number) for number in range(count)]
    return {_product_id(design, number): design for number, design in enumerate(designs)}


def _product_id(design: Design, number: int) -> str:
    return f"{design.type}-{design.color}-{design.pattern}-{number:04d}"


def _design(seed: int, number: int) -> Design:
    pair_order = np.random.default_rng((seed, 0)).permutation(len(TYPES) * len(COLORS))
    turn, place = divmod(number, len(pair_order))
    garment_type, color = list(pairs(TYPES, COLORS))[pair_order[place]]
    made_in = np.random.default_rng((seed, 1, int(pair_order[place]))).permutation(len(PATTERNS))
    pattern = PATTERNS[made_in[turn % _PATTERNS_A_PAIR]]
    background = BACKGROUNDS[np.random.default_rng((seed, 2, number)).integers(len(BACKGROUNDS))]
    return Design(garment_type, color, pattern, background)


def _product(seed: int, number: int) -> DemoProduct:
    design = _design(seed, number)
    rng = np.random.default_rng((seed, 3, number))
    brand = str(rng.choice(_BRANDS))
    return DemoProduct(
        product_id=_product_id(design, number),
        title=title(design, brand),
        description=description(design, rng),
        attributes={
            "type": design.type,
            "color": design.color,
            "pattern": design.pattern,
            "background": design.background,
            "brand": brand,
            "season": str(rng.choice(_SEASONS)),
            "price": round(float(_BASE_PRICES[design.type] * rng.uniform(0.6, 1.8)), 2),
            "in_stock": bool(rng.random() < 0.85),
        },
        images=tuple(_image(design, seed, number, view) for view in range(rng.integers(2, 5))),
    )


def _image(design: Design, seed: int, number: int, view: int) -> bytes:
    item, photograph = (
        np.random.SeedSequence((seed, 4, number)),
        np.random.SeedSequence((seed, 5, number, view)),
    )
    return jpeg(design, item, photograph)


def jpeg(design: Design, item: np.random.SeedSequence, photograph: np.random.SeedSequence) -> bytes:
    """Draw an image at the catalog's size as a JPEG file; `draw` says what the two seeds decide."""
    file = io.BytesIO()
    draw(design, IMAGE_SIZE, item, photograph).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
