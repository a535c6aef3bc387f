"""The part of a picture that a box names, also in a picture that was reduced while it was decoded."""

import math
from dataclasses import dataclass

from PIL import Image

from core.types import Box


@dataclass(frozen=True, slots=True)
class Decoded:
    """An RGB image, and how much of it is the picture, in pixels from its upper left corner.

    Where a reduced decode does not divide a side, the picture ends within the last column or row.
    """

    image: Image.Image
    width: float
    height: float


def side_for(target: float, share: float, side: int) -> int:
    """How many pixels of a side of `side` pixels are needed so that `share` of it has `target`.

    At most `side`, since a small enough share never has as many.
    """
    return min(side, math.ceil(min(target / share, side)))


def crop(picture: Decoded, box: Box) -> Decoded:
    """Cut an upright picture to the box, its edges rounded to pixels; at least one pixel is left."""
    image = picture.image
    left, right = _edges(box.x, box.width, image.width)
    top, bottom = _edges(box.y, box.height, image.height)
    width, height = min(right, picture.width) - left, min(bottom, picture.height) - top
    return Decoded(image.crop((left, top, right, bottom)), width, height)


def _edges(start: float, length: float, side: int) -> tuple[int, int]:
    first = min(round(start * side), side - 1)
    return first, max(first + 1, min(round((start + length) * side), side))
