"""Arithmetic on embeddings."""

from collections.abc import Sequence

import numpy as np

from core.errors import InvalidInput
from core.types import Vector


def weighted_mean(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """Combine unit vectors into one: float32 (dimension,), the L2-normalised weighted sum.

    Raises:
        InvalidInput: the weighted vectors cancel out and point nowhere.
    """
    total = np.einsum("n,nd->d", np.asarray(weights, np.float64), np.stack(vectors).astype(np.float64))
    norm = float(np.linalg.norm(total))
    if norm < 1e-6:
        raise InvalidInput("the weighted parts of the query cancel out; change a weight")
    unit: Vector = (total / norm).astype(np.float32)
    return unit
