"""Photographs: copies that people have edited find the original."""

import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
ASKED = 1000 if ALL else 50


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


def quarters(file: Path) -> dict[str, Image.Image]:
    """Cut a photograph in four, since the packages hold some thirty only, and keep the quarters with detail."""
    with Image.open(file) as opened:
        opened.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
        image = opened.convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    width, height = image.width // 2, image.height // 2
    cut = {
        f"{file.stem}-{left}-{top}": image.crop((left, top, left + width, top + height))
        for top in (0, height)
        for left in (0, width)
    }
    return {name: quarter for name, quarter in cut.items() if detail(quarter) >= LEAST_DETAIL}


@dataclass(frozen=True)
class Album:
    """Images by id, and a service that has indexed them."""

    images: dict[str, Image.Image]
    shop: Vitrine


@pytest.fixture(scope="module")
def album() -> Iterator[Album]:
    files = [file for package in PHOTOGRAPHS for file in photographs(package)]
    images: dict[str, Image.Image] = {}
    for file in files:
        # The same photograph in other sizes.
        if not file.stem.startswith("Elephants_"):
            images |= quarters(file)
    products = (NewProduct(each, images=[jpeg(image)]) for each, image in images.items())
    with tempfile.TemporaryDirectory(prefix="vitrine-") as name, real_shop(Path(name), products) as shop:
        yield Album(images, shop)


def test_edited_copies_find_their_originals(album: Album) -> None:
    names = list(album.images)
    drawn = np.random.default_rng(7).permutation(len(names))[:ASKED].tolist()
    ranks: dict[str, list[int | None]] = {}
    for edit, change in EDITS.items():

        def found(number: int, change: Edit = change) -> int | None:
            product_id = names[number]
            edited = jpeg(change(album.images[product_id], np.random.default_rng(number)))
            return rank(album.shop.search([ImagePart(edited)], limit=10), product_id)

        ranks[edit] = of_edit = at_once(found, drawn)
        print(
            f"{edit}: {len(of_edit)} of {len(names)} ask: recall@1 {recall(of_edit, 1):.3f}, "
            f"@10 {recall(of_edit, 10):.3f}"
        )
    every = [each for of_edit in ranks.values() for each in of_edit]
    print(f"all edits: recall@1 {recall(every, 1):.3f}, @10 {recall(every, 10):.3f}")
    assert recall(every, 1) >= 0.95
    assert min(recall(of_edit, 1) for of_edit in ranks.values()) >= 0.85
