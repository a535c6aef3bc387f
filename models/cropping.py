"""The part of a picture that a box names, also in a picture that was reduced while it was decoded."""

import math

from PIL import Image

from core.types import Box


def side_for(target: float, share: float, side: int) -> int:
    """How many pixels of a side of `side` pixels are needed so that `share` of it has `target`.

    At most `side`, since a small enough share never has as many.
    """
    return min(side, math.ceil(min(target / share, side)))


def crop(image: Image.Image, box: Box) -> Image.Image:
    """Cut an upright picture to the box, its edges rounded to pixels; at least one pixel is left."""
    left, right = _edges(box.x, box.width, image.width)
    top, bottom = _edges(box.y, box.height, image.height)
    return image.crop((left, top, right, bottom))


def _edges(start: float, length: float, side: int) -> tuple[int, int]:
    first = min(round(start * side), side - 1)
    return first, max(first + 1, min(round((start + length) * side), side))
