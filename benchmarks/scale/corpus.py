"""Products that are made by number: attributes, a vector each, and the exact answers to queries."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.types import Attributes, Vector

COLORS = ("black", "blue", "brown", "green", "grey", "orange", "pink", "red", "white", "yellow")
BRANDS = 1_000
PRICES = 1_000
BATCH = 1_000
"""Products that are made at once, by a seed of their own."""
_CLUSTERS = 2_000
_SPREAD = 0.1
"""Standard deviation of a component about its cluster's center, which has length 1."""

FILTERS = {
    "plain": None,
    "10 %": {"color": "red"},
    "1 %": {"price": {"lt": PRICES // 100}},
    "0.1 %": {"brand": "brand-7"},
}
"""Filters of the API, by the share of the products that pass."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Products of consecutive numbers: vectors (n, dimension), and attributes (n,) as numbers."""

    first: int
    vectors: NDArray[np.float32]
    colors: NDArray[np.int64]
    brands: NDArray[np.int64]
    prices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.vectors)

    def product_id(self, index: int) -> str:
        """Return the id of a product of this batch."""
        return product_id(self.first + index)

    def attributes(self, index: int) -> Attributes:
        """Return its attributes as a shop sends them."""
        return {
            "color": COLORS[self.colors[index]],
            "brand": f"brand-{self.brands[index]}",
            "price": int(self.prices[index]),
            "in_stock": bool(self.prices[index] % 2),
        }

    def passes(self, name: str) -> NDArray[np.bool_]:
        """Return which products pass this filter of `FILTERS`; bool (n,)."""
        masks: dict[str, NDArray[np.bool_]] = {
            "plain": np.ones(len(self), bool),
            "10 %": self.colors == COLORS.index("red"),
            "1 %": self.prices < PRICES // 100,
            "0.1 %": self.brands == 7,
        }
        return masks[name]


def product_id(number: int) -> str:
    """Return the id of a product."""
    return f"p{number:09d}"


class Corpus:
    """The first `size` products, and queries near them.

    Vectors lie in clusters, and attributes are independent of them. Attributes repeat after `distinct` products.
    """

    def __init__(self, dimension: int, queries: int, distinct: int = 100_000) -> None:
        self.dimension = dimension
        self.distinct = distinct
        self.size = 0
        self.queries = self._near_centers(np.random.default_rng((dimension, 1)), queries)
        """Unit vectors (queries, dimension), float32."""
        self._batches: list[Batch] = []

    def query(self, number: int) -> Vector:
        """Return one of the queries, as a unit vector (dimension,)."""
        vector: Vector = self.queries[number]
        return vector

    def grow(self, size: int) -> Iterator[Batch]:
        """Make the products that are not there yet, batch by batch.

        Raises:
            ValueError: the size is not a multiple of `BATCH`.
        """
        if size % BATCH:
            raise ValueError(f"{size} is not a multiple of {BATCH}")
        for first in range(self.size, size, BATCH):
            batch = self._made(first)
            self._batches.append(batch)
            self.size += BATCH
            yield batch

    def passing(self, name: str) -> int:
        """Count the products that pass this filter of `FILTERS`."""
        return int(sum(batch.passes(name).sum() for batch in self._batches))

    def nearest(self, name: str, count: int) -> list[list[str]]:
        """Find the ids of the `count` products that are nearest to each query under a filter, exactly."""
        passing = [batch.passes(name) for batch in self._batches]
        vectors = np.concatenate([b.vectors[p] for b, p in zip(self._batches, passing, strict=True)])
        numbers = np.concatenate(
            [b.first + np.flatnonzero(p) for b, p in zip(self._batches, passing, strict=True)]
        )
        found = []
        for query in self.queries:
            scores = vectors @ query
            best = np.argpartition(-scores, min(count, len(scores)) - 1)[:count]
            found.append([product_id(int(number)) for number in numbers[best]])
        return found

    def _made(self, first: int) -> Batch:
        vectors = self._near_centers(np.random.default_rng((self.dimension, 2, first)), BATCH)
        random = np.random.default_rng((self.dimension, 3, first % self.distinct))
        colors, brands, prices = (random.integers(0, n, BATCH) for n in (len(COLORS), BRANDS, PRICES))
        return Batch(first, vectors, colors, brands, prices)

    def _near_centers(self, random: np.random.Generator, count: int) -> NDArray[np.float32]:
        centers = self._centers[random.integers(0, _CLUSTERS, count)]
        return _unit(centers + _SPREAD * random.standard_normal((count, self.dimension)))

    @cached_property
    def _centers(self) -> NDArray[np.float32]:
        random = np.random.default_rng((self.dimension, 0))
        return _unit(random.standard_normal((_CLUSTERS, self.dimension)))


def vector_of(data: bytes, dimension: int) -> Vector:
    """Make a unit vector (dimension,) of the bytes of an image: equal files have equal vectors."""
    seed = int.from_bytes(hashlib.sha256(data).digest())
    vector: Vector = _unit(np.random.default_rng(seed).standard_normal((1, dimension)))[0]
    return vector


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
