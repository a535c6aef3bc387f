"""Search with one model: a weighted query becomes one vector, which is searched in its own collection."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from core.errors import Conflict, ModelUnavailable, NotFound, VitrineError
from core.filters import Filter
from core.ports import EncoderClient, VectorStore
from core.telemetry import Stage
from core.types import EncoderInfo, EncoderInput, Hit, Vector
from core.vectors import weighted_mean

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of a query that is in the catalog already: whose it is, and the row keys of its images."""

    label: str
    product_id: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueryPart:
    """One weighted part of a query; a negative weight pushes away."""

    content: EncoderInput | StoredPart
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class QueryVector:
    """What a model version makes of a query: a float32 unit vector (dimension,), and how long it took, in ms."""

    info: EncoderInfo
    vector: Vector
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for, and how many products of it."""

    parts: tuple[QueryPart, ...]
    limit: int
    filter: Filter | None = None
    exclude_products: tuple[str, ...] = ()
    minimum_scores: Mapping[str, float] | None = None
    """Smallest cosine of a match by collection; None: everything that is found is shown."""
    embedded: Mapping[str, QueryVector] = field(default_factory=dict)
    """What models, by name, have made of the parts already; such a model is not asked again."""
    not_asked: Mapping[str, str] = field(default_factory=dict)
    """Models, by name, that cannot encode a part or are not to be woken, and why: an ensemble leaves them out."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Distinct products, best first, near a query's vector; how long each stage took, in ms."""

    embedded: QueryVector
    hits: list[Hit]
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def info(self) -> EncoderInfo:
        """The model version that they are from."""
        return self.embedded.info


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
        embedded = query.embedded.get(self._encoder.name) or await self.embed(query.parts)
        with Stage("search", embedded.info.name) as stage:
            hits = await _read_of(
                embedded.info,
                self._store.search_products,
                embedded.info.collection,
                embedded.vector,
                query.limit,
                query.filter,
                query.exclude_products,
            )
        return SearchResult(embedded, hits, embedded.timings_ms | {"search": stage.ms})

    async def reach(self) -> None:
        """Return once the encoder answers at all; same errors as `EncoderClient.describe`."""
        await self._encoder.describe()

    async def embed(self, parts: Sequence[QueryPart]) -> QueryVector:
        """Turn the parts into one vector: their weighted mean; same errors as `search`."""
        started = time.perf_counter()
        info, vectors, timings = await self._vectors(parts)
        vector = weighted_mean(vectors, [part.weight for part in parts])
        return QueryVector(info, vector, timings | {"encode": (time.perf_counter() - started) * 1e3})

    async def score(
        self, embedded: QueryVector, products: Sequence[str], filter: Filter | None = None
    ) -> list[Hit]:
        """Score given products, each by its best image; those that the collection lacks are left out.

        Raises:
            ModelUnavailable, StoreUnavailable: not now.
        """
        collection = embedded.info.collection
        score = self._store.score_products
        return await _read_of(embedded.info, score, collection, embedded.vector, products, filter)

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
