"""Any colour mode of Pillow to plain RGB, the way an eye on a white page would see it."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WHITE = (255, 255, 255, 255)
_DEEP_MODES = ("I", "F")
_USUAL_WHITES = (1.0, 255.0, 65_535.0)
_STRIP_ROWS = 256


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: transparency on white, deep greys scaled instead of clipped.

    The image must be loaded. Palettes, CMYK, YCbCr, 1-bit and grey become RGB by Pillow's own rules.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith(_DEEP_MODES):
        white = _white_point(image)
        return _by_strips(image, lambda strip: _eight_bits(strip, white).convert("RGB"))
    if image.has_transparency_data:
        return _by_strips(image, lambda strip: _on_white(strip.convert("RGBA")))
    return image.convert("RGB")


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert some rows after others: what is made on the way takes up to 20 bytes a pixel."""
    page = Image.new("RGB", image.size)
    for strip, place in _strips(image):
        page.paste(convert(strip), place)
    return page


def _strips(image: Image.Image) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    for top in range(0, image.height, _STRIP_ROWS):
        yield image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height))), (0, top)


def _on_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGBA", image.size, _WHITE)
    return Image.alpha_composite(page, image).convert("RGB")


def _eight_bits(image: Image.Image, white: float) -> Image.Image:
    scaled = np.clip(_values(image), 0.0, None) * (255.0 / white)
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _values(image: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _white_point(image: Image.Image) -> float:
    """The value that means white: by the mode for 16 bit, else the least usual range that holds them.

    32-bit and float files do not say where white is.
    """
    if image.mode.startswith("I;16"):
        return 65_535.0
    highest = max(float(_values(strip).max()) for strip, _ in _strips(image))
    usual = _USUAL_WHITES if image.mode == "F" else _USUAL_WHITES[1:]
    return next((white for white in usual if highest <= white), highest)
