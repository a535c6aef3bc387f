"""Draws one picture of a garment."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from demo.looks import Look
from demo.outlines import outline
from demo.textures import Plane, backdrop, cloth

_EDGE_OVERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class _View:
    """Where the garment lies in the picture: scale, turn in radians, shift in picture sides, mirrored."""

    scale: float
    turn: float
    shift: tuple[float, float]
    mirrored: bool

    def to_picture(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Garment coordinates to picture coordinates; both of shape (n, 2)."""
        centred = (points - 0.5) * ((-1.0, 1.0) if self.mirrored else (1.0, 1.0))
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return self.scale * centred @ np.array(((cos, sin), (-sin, cos))) + 0.5 + self.shift

    def to_garment(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """Picture coordinates to garment coordinates, undoing `to_picture`."""
        cos, sin = np.float32(np.cos(self.turn) / self.scale), np.float32(np.sin(self.turn) / self.scale)
        right, down = x - np.float32(0.5 + self.shift[0]), y - np.float32(0.5 + self.shift[1])
        across = right * cos + down * sin
        return (-across if self.mirrored else across) + np.float32(
            0.5
        ), down * cos - right * sin + np.float32(0.5)


def draw(look: Look, size: int, item: np.random.SeedSequence, view: np.random.SeedSequence) -> Image.Image:
    """One RGB picture of `size` x `size` pixels.

    `item` decides what belongs to the garment (proportions, dye, print), `view` what belongs to the
    photograph (place, turn, light, noise): pictures of one product share the first.
    """
    items, views = np.random.default_rng(item), np.random.default_rng(view)
    shape = outline(look.type, items)
    placed = _place(views)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size)
    garment = cloth(look.colour, look.pattern, *placed.to_garment(x, y), items)
    garment *= _folds(x, y, views)[..., None]
    mask = _mask([placed.to_picture(np.array(polygon)) for polygon in shape], size)
    return _photograph(garment, mask, backdrop(look.background, x, y, views), views)


def _place(rng: np.random.Generator) -> _View:
    shift_x, shift_y = rng.uniform(-0.07, 0.07, 2)
    return _View(rng.uniform(0.72, 1.0), rng.uniform(-0.2, 0.2), (shift_x, shift_y), bool(rng.random() < 0.5))


def _mask(polygons: list[NDArray[np.float64]], size: int) -> Image.Image:
    """Where the garment is: 255 inside, 0 outside, smooth at the edge."""
    mask = Image.new("L", (size * _EDGE_OVERSAMPLING,) * 2, 0)
    pen = ImageDraw.Draw(mask)
    for polygon in polygons:
        pen.polygon([(x, y) for x, y in polygon * mask.width], fill=255)
    return mask.reduce(_EDGE_OVERSAMPLING)


def _folds(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    depth, wide, slant, phase = 0.22 * rng.random(), rng.uniform(1, 3), rng.uniform(-1, 1), rng.uniform(0, 6)
    waves = np.abs(np.sin(x * np.float32(3.1 * wide) + y * np.float32(3.1 * slant) + np.float32(phase)))
    return np.asarray(1 - np.float32(depth) * waves, np.float32)


def _photograph(
    garment: NDArray[np.float32], mask: Image.Image, behind: NDArray[np.float32], rng: np.random.Generator
) -> Image.Image:
    """Lay the garment on the backdrop with a drop shadow and a dark edge, expose, and add sensor noise."""
    size = mask.width
    shadow = _fraction(mask.filter(ImageFilter.GaussianBlur(size * 0.03)))
    behind *= (1 - 0.25 * np.roll(shadow, max(1, size // 50), axis=0))[..., None]
    inside = _fraction(mask)[..., None]
    picture = behind + inside * (garment - behind)
    exposure = np.float32(rng.uniform(0.88, 1.08))
    picture *= ((1 - 0.5 * _fraction(mask.filter(ImageFilter.FIND_EDGES))) * exposure)[..., None]
    picture += 3 * rng.standard_normal(picture.shape, np.float32)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _fraction(mask: Image.Image) -> Plane:
    return np.asarray(mask, np.float32) / np.float32(255)
