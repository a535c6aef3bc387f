"""Search with one model: a weighted query becomes one vector, which is searched in its own collection."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from core.errors import (
    Conflict,
    InvalidInput,
    ModelUnavailable,
    NotFound,
    UnsupportedModality,
    VitrineError,
)
from core.filters import Filter
from core.ports import EncoderClient, VectorStore
from core.types import EncoderInfo, EncoderInput, Hit, Vector

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of a query that is in the catalog already: the row keys of its pictures."""

    label: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueryPart:
    """One weighted part of a query; a negative weight pushes away."""

    content: EncoderInput | StoredPart
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for, and how many products of it."""

    parts: tuple[QueryPart, ...]
    limit: int
    filter: Filter | None = None
    exclude_products: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Distinct products, best first, from one model version; how long each stage took, in ms."""

    info: EncoderInfo
    hits: list[Hit]
    timings_ms: dict[str, float] = field(default_factory=dict)


class ModelSearch:
    """Search with one encoder."""

    def __init__(self, encoder: EncoderClient, store: VectorStore) -> None:
        self._encoder = encoder
        self._store = store

    async def search(self, query: Query) -> SearchResult:
        """Find the nearest `query.limit` distinct products.

        Raises:
            InvalidInput: a part is bad, or the parts cancel out.
            UnsupportedModality: the model cannot encode a part.
            Conflict: a stored part has no vector from this model version yet.
            ModelUnavailable, StoreUnavailable, DeadlineExceeded: not now.
        """
        started = time.perf_counter()
        info, vectors, timings = await self._vectors(query.parts)
        vector = weighted_mean(vectors, [part.weight for part in query.parts])
        encoded = time.perf_counter()
        hits = await _read_of(
            info,
            self._store.search_products,
            info.collection,
            vector,
            query.limit,
            query.filter,
            query.exclude_products,
        )
        searched = time.perf_counter()
        timings |= {"encode": (encoded - started) * 1e3, "search": (searched - encoded) * 1e3}
        return SearchResult(info, hits, timings)

    async def _vectors(
        self, parts: Sequence[QueryPart]
    ) -> tuple[EncoderInfo, list[Vector], dict[str, float]]:
        fresh = [part.content for part in parts if not isinstance(part.content, StoredPart)]
        if fresh:
            encoded = await self._encoder.encode(fresh)
            info, timings = encoded.info, dict(encoded.timings_ms)
            answers = iter(encoded.vectors)
        else:
            info, timings, answers = await self._encoder.describe(), {}, iter(())
        vectors = []
        for index, part in enumerate(parts):
            if isinstance(part.content, StoredPart):
                vectors.append(await self._stored_vector(info, part.content))
                continue
            answer = next(answers)
            if isinstance(answer, VitrineError):
                raise answer.at(f"query[{index}]")
            vectors.append(answer)
        return info, vectors, timings

    async def _stored_vector(self, info: EncoderInfo, part: StoredPart) -> Vector:
        found = await _read_of(info, self._store.fetch, info.collection, part.keys)
        if not found:
            raise Conflict(f"{part.label} has no embedding from model {info.name!r} yet; try again shortly")
        return weighted_mean(list(found.values()), [1.0] * len(found))


async def _read_of(info: EncoderInfo, read: Callable[..., T], *args: object) -> T:
    """Read from the version's collection; one that is not there yet is a matter of time, not of the request."""
    try:
        return await asyncio.to_thread(read, *args)
    except NotFound:
        raise ModelUnavailable(f"the collection of model {info.name!r} is not there yet") from None


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


def unsupported(model: str, modality: str, capable: Sequence[str]) -> UnsupportedModality:
    """Say that a model cannot encode this kind of input and which models can."""
    others = ", ".join(sorted(capable)) if capable else "none of the configured models"
    return UnsupportedModality(f"model {model!r} cannot encode {modality}; these can: {others}")
