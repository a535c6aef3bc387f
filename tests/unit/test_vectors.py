"""Arithmetic on embeddings."""

import numpy as np
import pytest

from core.errors import InvalidInput
from core.vectors import weighted_mean

EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e-320, 1e39, 4e307])
def test_only_the_proportions_of_weights_mean_something(scale: float) -> None:
    mean = weighted_mean([EAST, NORTH], [3 * scale, -4 * scale])
    assert mean.dtype == np.float32
    assert mean == pytest.approx([0.6, -0.8], abs=1e-3)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1e-12, -1e-12], [0.0, 0.0]])
def test_weights_that_cancel_out_are_refused(weights: list[float]) -> None:
    with pytest.raises(InvalidInput, match="cancel out"):
        weighted_mean([EAST, EAST], weights)
