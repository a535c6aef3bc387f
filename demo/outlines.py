"""Outlines of the garment types: polygons in the unit square, x to the right and y down."""

from collections.abc import Callable

import numpy as np

Polygon = list[tuple[float, float]]


def outline(garment_type: str, rng: np.random.Generator) -> list[Polygon]:
    """Polygons whose union is a garment of this type; proportions vary with `rng`."""
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
