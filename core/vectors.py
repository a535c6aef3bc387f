"""Arithmetic on embeddings."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.errors import InvalidInput
from core.types import Vector

_UNIT_TOLERANCE = 1e-3


def relative_weights(weights: Sequence[float]) -> NDArray[np.float64]:
    """Scale weights so that the largest in magnitude is 1 or -1, float64 (n,); zeros stay zeros.

    Only their proportions mean something, and no sum of scaled ones overflows or vanishes.
    """
    given = np.asarray(weights, np.float64)
    largest = np.abs(given).max(initial=0.0)
    return given / largest if largest > 0 else given


def is_unit(vector: Vector) -> bool:
    """Return whether a vector (dimension,) has length 1, as those of encoders have; one with NaN has not."""
    return abs(float(np.linalg.norm(vector.astype(np.float64))) - 1) <= _UNIT_TOLERANCE


def weighted_mean(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """Combine unit vectors into one: float32 (dimension,), the L2-normalized weighted sum.

    Raises:
        InvalidInput: the weighted vectors cancel out and point nowhere.
    """
    total = np.einsum("n,nd->d", relative_weights(weights), np.stack(vectors).astype(np.float64))
    norm = float(np.linalg.norm(total))
    if norm < 1e-6:
        raise InvalidInput("the weighted parts of the query cancel out; change a weight").at("query")
    unit: Vector = (total / norm).astype(np.float32)
    return unit
