"""Cloth and backdrop: colours in 0..255 as float32 arrays."""

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
"""One value a pixel, shape (height, width)."""

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
    "grey": (165, 168, 172),
    "beige": (226, 208, 180),
    "wooden": (160, 120, 80),
}
_LIGHT_PRINT = (245, 245, 240)
_DARK_PRINT = (40, 40, 45)
_FLOWERS_ACROSS = 5


def cloth(colour: str, pattern: str, x: Plane, y: Plane, rng: np.random.Generator) -> NDArray[np.float32]:
    """Dyed and printed cloth, shape (height, width, 3), at the garment's own coordinates `x`, `y`.

    The print is light on dark dyes and dark on light ones.
    """
    dye = np.asarray(_DYES[colour], np.float32) + rng.normal(0, 9, 3).astype(np.float32)
    ink = np.asarray(_LIGHT_PRINT if dye.mean() < 150 else _DARK_PRINT, np.float32)
    printed = _print(pattern, x, y, rng)[..., None]
    return np.asarray(dye + printed * (ink - dye), np.float32)


def backdrop(background: str, x: Plane, y: Plane, rng: np.random.Generator) -> NDArray[np.float32]:
    """What lies behind the garment, shape (height, width, 3), with a slope of light across it."""
    tone = np.asarray(_BACKDROPS[background], np.float32) + rng.normal(0, 4, 3).astype(np.float32)
    slope_x, slope_y = rng.random() * rng.uniform(-1, 1, 2)
    light = 1 - 0.12 * (x * np.float32(slope_x) + y * np.float32(slope_y))
    if background != "wooden":
        return np.asarray(tone * light[..., None], np.float32)
    waves = x * np.float32(rng.uniform(5, 8)) + 0.05 * np.sin(y * 9 + np.float32(rng.uniform(0, 6)))
    grain = 12 * np.sin(waves * np.float32(2 * np.pi))
    return np.asarray((tone + grain[..., None]) * light[..., None], np.float32)


def _print(pattern: str, x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """How much ink lies on each point, 0 to 1."""
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
    """Five-petalled flowers, one in each cell of a grid so that every garment shows some."""
    ink = np.zeros_like(x)
    for column, row in np.ndindex(_FLOWERS_ACROSS, _FLOWERS_ACROSS):
        centre_x, centre_y = (np.array((column, row)) + rng.random(2)) / _FLOWERS_ACROSS
        radius, turn = np.float32(rng.uniform(0.06, 0.1)), np.float32(rng.uniform(0, 6))
        dx, dy = x - np.float32(centre_x), y - np.float32(centre_y)
        square = dx * dx + dy * dy
        near = np.nonzero(square < radius * radius)
        petals = radius * (0.62 + 0.38 * np.cos(5 * np.arctan2(dy[near], dx[near]) + turn))
        ink[near] = np.maximum(ink[near], square[near] < petals * petals)
    return ink
