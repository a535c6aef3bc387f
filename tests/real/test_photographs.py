"""Photographs: copies that people have edited find the original.

The packages hold some thirty photographs. So their quarters are indexed too, as further images to confuse them with.
"""

import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.support.corpora import PHOTOGRAPHS, photographs
from tests.support.real_images import ALL, at_once, rank, real_shop, recall
from vitrine import ImagePart, NewProduct, Vitrine

WHITE, DARK, LIGHT = (255, 255, 255), (32, 33, 36), (200, 200, 205)
LONGEST_SIDE = 960
LEAST_DETAIL = 3.0
"""Quarters of plain sky are left out: nobody could say which of them was edited."""
QUARTERS = 1000 if ALL else 30
"""At most so many quarters ask; all photographs do."""


def crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Keep 70 % of the area."""
    width, height = (round(side * 0.7**0.5) for side in image.size)
    left, top = (int(random.integers(free + 1)) for free in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height))


def rotate(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Turn by 3 to 10 degrees either way, with white corners."""
    angle = float(random.uniform(3, 10)) * (1 if random.random() < 0.5 else -1)
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=WHITE)


def blur(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Blur by 0.6 % of the longer side."""
    return image.filter(ImageFilter.GaussianBlur(0.006 * max(image.size)))


def screenshot(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Show it in a dark window with a bar, at half its size."""
    canvas = Image.new("RGB", (round(image.width * 1.2), round(image.height * 1.3)), DARK)
    canvas.paste(image, (round(image.width * 0.1), round(image.height * 0.2)))
    bar = (image.width * 0.1, image.height * 0.03, image.width * 0.8, image.height * 0.1)
    ImageDraw.Draw(canvas).rounded_rectangle(bar, 8, fill=LIGHT)
    return canvas.resize((canvas.width // 2, canvas.height // 2))


def recompress(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Halve the sides, and write JPEG of quality 20."""
    file = io.BytesIO()
    image.resize((image.width // 2, image.height // 2)).save(file, "JPEG", quality=20)
    return Image.open(file)


Edit = Callable[[Image.Image, np.random.Generator], Image.Image]
EDITS: dict[str, Edit] = {
    "crop": crop,
    "rotation": rotate,
    "blur": blur,
    "screenshot": screenshot,
    "recompression": recompress,
}


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


def detail(image: Image.Image) -> float:
    """Mean difference of neighboring pixels, in levels of gray, in a reduced image."""
    gray = np.asarray(image.convert("L").resize((120, 90), Image.Resampling.BOX), np.float64)
    return float(sum(np.abs(np.diff(gray, axis=axis)).mean() for axis in (0, 1)))


def quarters(image: Image.Image) -> list[Image.Image]:
    """Cut an image in four, and keep the quarters with detail."""
    width, height = image.width // 2, image.height // 2
    corners = [(left, top) for top in (0, height) for left in (0, width)]
    cut = [image.crop((left, top, left + width, top + height)) for left, top in corners]
    return [quarter for quarter in cut if detail(quarter) >= LEAST_DETAIL]


@dataclass(frozen=True)
class Album:
    """Photographs and their quarters by id, and a service that has indexed both."""

    photographs: dict[str, Image.Image]
    quarters: dict[str, Image.Image]
    shop: Vitrine

    def overlapping(self, product_id: str) -> list[str]:
        """Name the quarters of a photograph, or the photograph of a quarter."""
        whole, _, number = product_id.rpartition(":")
        return [whole] if number else [each for each in self.quarters if each.startswith(f"{product_id}:")]


@pytest.fixture(scope="module")
def album() -> Iterator[Album]:
    whole, cut = {}, {}
    for file in (file for package in PHOTOGRAPHS for file in photographs(package)):
        # The same photograph in other sizes.
        if file.stem.startswith("Elephants_"):
            continue
        with Image.open(file) as opened:
            opened.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
            image = opened.convert("RGB")
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        whole[file.stem] = image
        cut |= {f"{file.stem}:{number}": each for number, each in enumerate(quarters(image))}
    products = (NewProduct(each, images=[jpeg(image)]) for each, image in (whole | cut).items())
    with tempfile.TemporaryDirectory(prefix="vitrine-") as name, real_shop(Path(name), products) as shop:
        yield Album(whole, cut, shop)


def asked(album: Album, images: dict[str, Image.Image]) -> dict[str, list[int | None]]:
    """Search for each image by each edit of it, with what overlaps it left out; returns the ranks by edit."""

    def found(number: int, change: Edit) -> int | None:
        product_id = names[number]
        edited = jpeg(change(images[product_id], np.random.default_rng(number)))
        left_out = album.overlapping(product_id)
        return rank(album.shop.search([ImagePart(edited)], limit=10, exclude=left_out), product_id)

    names = list(images)
    numbers = range(len(names))
    return {edit: at_once(partial(found, change=change), numbers) for edit, change in EDITS.items()}


def all_of(ranks: dict[str, list[int | None]]) -> list[int | None]:
    """Print the recall of each edit; returns the ranks of all."""
    every = [each for of_edit in ranks.values() for each in of_edit]
    for edit, of_edit in (ranks | {"all edits": every}).items():
        print(f"{edit}, {len(of_edit)} ask: recall@1 {recall(of_edit, 1):.3f}, @10 {recall(of_edit, 10):.3f}")
    return every


def test_an_edited_photograph_finds_its_original(album: Album) -> None:
    print(f"{len(album.photographs)} photographs, beside {len(album.quarters)} quarters of others")
    assert recall(all_of(asked(album, album.photographs)), 1) >= 0.95


def test_an_edited_quarter_mostly_finds_its_original_among_quarters_of_the_same_photograph(
    album: Album,
) -> None:
    drawn = np.random.default_rng(7).permutation(len(album.quarters))[:QUARTERS]
    names = [list(album.quarters)[number] for number in drawn]
    assert recall(all_of(asked(album, {name: album.quarters[name] for name in names})), 1) >= 0.85
