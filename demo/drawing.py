"""Drawing an image of a garment: outline, cloth, print and backdrop."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from demo.garments import Design

Polygon = list[tuple[float, float]]
_DYES = {
    "red": (205, 30, 40),
    "green": (35, 140, 60),
    "blue": (35, 75, 200),
    "yellow": (240, 205, 40),
    "black": (28, 28, 30),
    "white": (242, 242, 240),
    "orange": (240, 125, 25),
    "purple": (120, 50, 160),
    "pink": (245, 140, 180),
    "brown": (120, 75, 40),
}
_BACKDROPS = {
    "white": (250, 250, 250),
    "gray": (165, 168, 172),
    "beige": (226, 208, 180),
    "wooden": (160, 120, 80),
}
_LIGHT_PRINT = (245, 245, 240)
_DARK_PRINT = (40, 40, 45)
_FLOWERS_ACROSS = 5
_EDGE_OVERSAMPLING = 2


def outline(garment_type: str, rng: np.random.Generator) -> list[Polygon]:
    """Return polygons whose union is a garment of this type; proportions vary with `rng`."""
    return _OUTLINES[garment_type](rng)


def _mirrored(right_half: Polygon) -> Polygon:
    return right_half + [(1 - x, y) for x, y in reversed(right_half) if x != 0.5]


def _dress(rng: np.random.Generator) -> list[Polygon]:
    hem, waist, shoulder = rng.uniform(0.24, 0.36), rng.uniform(0.08, 0.12), rng.uniform(0.11, 0.15)
    waist_y = 0.42 + rng.uniform(-0.02, 0.02)
    right = [(0.5, 0.16), (0.56, 0.1), (0.5 + shoulder, 0.1), (0.5 + waist, waist_y), (0.5 + hem, 0.92)]
    return [_mirrored(right)]


def _shirt(rng: np.random.Generator) -> list[Polygon]:
    cuff, body, hem = rng.uniform(0.3, 0.62), 0.5 + rng.uniform(0.17, 0.22), rng.uniform(0.72, 0.85)
    collar = [(0.5, 0.19), (0.57, 0.13), (0.7, 0.16)]
    sleeve = [(0.93, cuff), (0.82, cuff + 0.07)]
    return [_mirrored([*collar, *sleeve, (body, 0.36), (body, hem)])]


def _trousers(rng: np.random.Generator) -> list[Polygon]:
    waist, leg = 0.5 + rng.uniform(0.15, 0.2), rng.uniform(0.08, 0.14)
    return [_mirrored([(waist, 0.07), (waist + 0.05, 0.93), (waist + 0.05 - leg, 0.93), (0.5, 0.36)])]


def _shorts(rng: np.random.Generator) -> list[Polygon]:
    waist, leg, hem = 0.5 + rng.uniform(0.2, 0.25), rng.uniform(0.2, 0.24), rng.uniform(0.56, 0.7)
    return [_mirrored([(waist, 0.25), (waist + 0.1, hem), (waist + 0.1 - leg, hem + 0.02), (0.5, 0.45)])]


def _skirt(rng: np.random.Generator) -> list[Polygon]:
    width, waist, hem = rng.uniform(0.28, 0.4), rng.uniform(0.12, 0.17), rng.uniform(0.68, 0.85)
    right = [(0.5 + waist, 0.24), (0.5 + width, hem), (0.5 + width / 2, hem + 0.03), (0.5, hem + 0.04)]
    return [_mirrored(right)]


def _coat(rng: np.random.Generator) -> list[Polygon]:
    body = 0.5 + rng.uniform(0.2, 0.25)
    front = [(0.68, 0.09), (0.56, 0.07), (0.53, 0.3), (0.53, 0.95)]
    right = [*front, (body + 0.03, 0.95), (body, 0.4), (0.8, 0.66), (0.9, 0.62)]
    return [right, [(1 - x, y) for x, y in right]]


def _shoe(rng: np.random.Generator) -> list[Polygon]:
    heel = rng.uniform(0.32, 0.42)
    upper = [
        (0.1, heel),
        (0.32, heel - 0.02),
        (0.42, 0.5),
        (0.66, 0.58),
        (0.88, 0.64),
        (0.93, 0.74),
        (0.1, 0.76),
    ]
    return [upper, [(0.08, 0.77), (0.95, 0.76), (0.94, 0.82), (0.08, 0.83)]]


def _bag(rng: np.random.Generator) -> list[Polygon]:
    width, top, handle = 0.5 + rng.uniform(0.26, 0.34), rng.uniform(0.38, 0.45), rng.uniform(0.11, 0.16)
    return [_mirrored([(width - 0.04, top), (width, 0.88)]), _handle(handle)]


def _handle(radius: float, thickness: float = 0.035) -> Polygon:
    angles = np.linspace(0, np.pi, 16)

    def arc(grow: float) -> Polygon:
        x = 0.5 + (radius + grow) * np.cos(angles)
        y = 0.44 - (0.26 + grow) * np.sin(angles)
        return list(zip(x.tolist(), y.tolist(), strict=True))

    return arc(thickness / 2) + arc(-thickness / 2)[::-1]


def _hat(rng: np.random.Generator) -> list[Polygon]:
    width, top = 0.5 + rng.uniform(0.17, 0.23), rng.uniform(0.25, 0.34)
    crown = [(0.55, top - 0.04), (width - 0.03, top), (width, 0.62)]
    return [_mirrored(crown), _mirrored([(0.94, 0.62), (0.86, 0.72)])]


def _scarf(rng: np.random.Generator) -> list[Polygon]:
    end = rng.uniform(0.07, 0.1)
    knot = [(0.3, 0.14), (0.7, 0.14), (0.76, 0.28), (0.24, 0.28)]
    long = [(0.34, 0.26), (0.34 + 2 * end, 0.26), (0.4 + end, 0.9), (0.3 - end * 0.3, 0.9)]
    short = [(0.5, 0.26), (0.5 + 2 * end, 0.26), (0.68, 0.72), (0.54, 0.74)]
    return [knot, long, short]


_OUTLINES: dict[str, Callable[[np.random.Generator], list[Polygon]]] = {
    "dress": _dress,
    "shirt": _shirt,
    "trousers": _trousers,
    "skirt": _skirt,
    "coat": _coat,
    "shorts": _shorts,
    "shoe": _shoe,
    "bag": _bag,
    "hat": _hat,
    "scarf": _scarf,
}


Plane = NDArray[np.float32]
"""One value a pixel, shape (height, width)."""


def cloth(color: str, pattern: str, x: Plane, y: Plane, rng: np.random.Generator) -> NDArray[np.float32]:
    """Dye and print cloth, shape (height, width, 3), at the garment's own coordinates `x`, `y`.

    The print is light on dark dyes and dark on light ones.
    """
    dye = np.asarray(_DYES[color], np.float32) + rng.normal(0, 9, 3).astype(np.float32)
    ink = np.asarray(_LIGHT_PRINT if dye.mean() < 150 else _DARK_PRINT, np.float32)
    printed = _print(pattern, x, y, rng)[..., None]
    return np.asarray(dye + printed * (ink - dye), np.float32)


def backdrop(background: str, x: Plane, y: Plane, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the backdrop, shape (height, width, 3), with a slope of light across it."""
    tone = np.asarray(_BACKDROPS[background], np.float32) + rng.normal(0, 4, 3).astype(np.float32)
    slope_x, slope_y = rng.random() * rng.uniform(-1, 1, 2)
    light = 1 - 0.12 * (x * np.float32(slope_x) + y * np.float32(slope_y))
    if background != "wooden":
        return np.asarray(tone * light[..., None], np.float32)
    waves = x * np.float32(rng.uniform(5, 8)) + 0.05 * np.sin(y * 9 + np.float32(rng.uniform(0, 6)))
    grain = 12 * np.sin(waves * np.float32(2 * np.pi))
    return np.asarray((tone + grain[..., None]) * light[..., None], np.float32)


def _print(pattern: str, x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Return the ink on each point, 0 to 1."""
    if pattern == "plain":
        return np.zeros_like(x)
    if pattern == "floral":
        return _flowers(x, y, rng)
    tilt = rng.uniform(-0.25, 0.25) + (np.pi / 2 if rng.random() < 0.4 else 0.0)
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    repeat = np.float32(rng.uniform(6, 9))
    across = (x * cos + y * sin) * repeat + np.float32(rng.random())
    along = (y * cos - x * sin) * repeat + np.float32(rng.random())
    if pattern == "striped":
        return (along % 1 < 0.38).astype(np.float32)
    if pattern == "checked":
        return ((across * 0.8 % 1 < 0.42).astype(np.float32) + (along * 0.8 % 1 < 0.42)) / np.float32(2)
    return ((across * 0.9 % 1 - 0.5) ** 2 + (along * 0.9 % 1 - 0.5) ** 2 < 0.07).astype(np.float32)


def _flowers(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Draw five-petaled flowers, one in each cell of a grid, so that every garment shows some."""
    ink = np.zeros_like(x)
    for column, row in np.ndindex(_FLOWERS_ACROSS, _FLOWERS_ACROSS):
        center_x, center_y = (np.array((column, row)) + rng.random(2)) / _FLOWERS_ACROSS
        radius, turn = np.float32(rng.uniform(0.06, 0.1)), np.float32(rng.uniform(0, 6))
        dx, dy = x - np.float32(center_x), y - np.float32(center_y)
        square = dx * dx + dy * dy
        near = np.nonzero(square < radius * radius)
        petals = radius * (0.62 + 0.38 * np.cos(5 * np.arctan2(dy[near], dx[near]) + turn))
        ink[near] = np.maximum(ink[near], square[near] < petals * petals)
    return ink


@dataclass(frozen=True, slots=True)
class _Placement:
    """Place of the garment in the image: scale, turn in radians, shift in image sides, mirrored."""

    scale: float
    turn: float
    shift: tuple[float, float]
    mirrored: bool

    def to_image(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn garment coordinates into image coordinates; both of shape (n, 2)."""
        centered = (points - 0.5) * ((-1.0, 1.0) if self.mirrored else (1.0, 1.0))
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return self.scale * centered @ np.array(((cos, sin), (-sin, cos))) + 0.5 + self.shift

    def to_garment(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """Turn image coordinates into garment coordinates, undoing `to_image`."""
        cos, sin = np.float32(np.cos(self.turn) / self.scale), np.float32(np.sin(self.turn) / self.scale)
        right, down = x - np.float32(0.5 + self.shift[0]), y - np.float32(0.5 + self.shift[1])
        across = right * cos + down * sin
        return (-across if self.mirrored else across) + np.float32(
            0.5
        ), down * cos - right * sin + np.float32(0.5)


def draw(
    design: Design, size: int, item: np.random.SeedSequence, view: np.random.SeedSequence
) -> Image.Image:
    """Draw one RGB image of `size` x `size` pixels.

    `item` seeds the garment (proportions, dye, print), `view` the photograph (place, turn, light, noise).
    Images of one product share `item`.
    """
    items, views = np.random.default_rng(item), np.random.default_rng(view)
    shape = outline(design.type, items)
    placed = _place(views)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size)
    garment = cloth(design.color, design.pattern, *placed.to_garment(x, y), items)
    garment *= _folds(x, y, views)[..., None]
    mask = _mask([placed.to_image(np.array(polygon)) for polygon in shape], size)
    return _photograph(garment, mask, backdrop(design.background, x, y, views), views)


def _place(rng: np.random.Generator) -> _Placement:
    shift_x, shift_y = rng.uniform(-0.07, 0.07, 2)
    return _Placement(
        rng.uniform(0.72, 1.0), rng.uniform(-0.2, 0.2), (shift_x, shift_y), bool(rng.random() < 0.5)
    )


def _mask(polygons: list[NDArray[np.float64]], size: int) -> Image.Image:
    """Draw the garment's mask: 255 inside, 0 outside, smooth at the edge."""
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
    image = behind + inside * (garment - behind)
    exposure = np.float32(rng.uniform(0.88, 1.08))
    image *= ((1 - 0.5 * _fraction(mask.filter(ImageFilter.FIND_EDGES))) * exposure)[..., None]
    image += 3 * rng.standard_normal(image.shape, np.float32)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def _fraction(mask: Image.Image) -> Plane:
    return np.asarray(mask, np.float32) / np.float32(255)
