"""Rows for vector stores, and what a search over them has to find."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.filters import Filter, matches
from core.types import IndexItem, Vector, VectorRow


def row(
    image_id: str, vector: Vector, product_id: str = "p", revision: int = 1, **attributes: Any
) -> VectorRow:
    """A row; its product is `p` unless given."""
    return VectorRow(IndexItem(image_id, revision, product_id, "0" * 64, attributes), vector)


def unit(*values: float) -> Vector:
    """The unit vector of dimension 8 in the direction of the values."""
    vector = np.zeros(8, dtype=np.float32)
    vector[: len(values)] = values
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def best_scores(rows: Sequence[VectorRow], query: Vector, filter: Filter | None = None) -> dict[str, float]:
    """The best cosine similarity of each product that passes the filter, by brute force."""
    scores: dict[str, float] = {}
    for each in rows:
        if filter is None or matches(filter, each.item.attributes):
            score = float(
                each.vector.astype(np.float64)
                @ query.astype(np.float64)
                / np.linalg.norm(each.vector.astype(np.float64))
                / np.linalg.norm(query.astype(np.float64))
            )
            product_id = each.item.product_id
            scores[product_id] = max(scores.get(product_id, -2.0), score)
    return scores
