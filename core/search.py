"""Search: the query that goes down, the result that comes up, and search with one model.

The hybrid search, the ensemble, one model, and the gateway above them all take a `SearchQuery` and return a
`SearchResult`. Each narrows the query for the next by `dataclasses.replace`, and adds to the result what it knows.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from core.calibration import matching
from core.errors import Conflict, InvalidInput, ModelUnavailable, NotFound, VitrineError
from core.filters import Filter
from core.fusion import Fusion, weighted_mean
from core.ports import EncoderClient, VectorStore
from core.rerank import Rerank, Reranked
from core.telemetry import Stage
from core.types import PROBE, EncoderInfo, EncoderInput, Hit, Product, Vector

T = TypeVar("T")

ENSEMBLE = "ensemble"
"""Name of all members together, where a model is named."""


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A product or an image of the catalog as a part of a query: its product, and the row keys of its images."""

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
    """A query in the space of a model version: a float32 unit vector (dimension,), and how long it took, in ms."""

    info: EncoderInfo
    vector: Vector
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """Parts of a query, the model or the ensemble that is asked, and which page of the products is wanted."""

    parts: tuple[QueryPart, ...]
    limit: int = 10
    filter: Filter | None = None
    exclude_products: tuple[str, ...] = ()
    model: str = ENSEMBLE
    offset: int = 0
    """Known to the gateway alone: below it a query asks for the first `limit` products."""
    weights: Mapping[str, float] | None = None
    """Weights of the ensemble's members; a member without one has that of the configuration, or 1."""
    fusion: Fusion | None = None
    """None: that of the configuration, or `rrf`."""
    keyword_weight: float | None = None
    """Share of the keyword search in the order, 0 to 1. None: that of the configuration where it applies."""
    score_threshold: float | None = None
    """Smallest cosine of a match, for one model."""
    max_false_match_rate: float | None = None
    """Rate at which unrelated queries may find anything."""
    minimum_scores: Mapping[str, float] | None = None
    """Smallest cosine of a match by collection, made of one of these two; None: all that is found is shown."""
    embedded: Mapping[str, QueryVector] = field(default_factory=dict)
    """Vectors of the query that are known, by model; such a model is not asked to embed it again."""
    not_asked: Mapping[str, str] = field(default_factory=dict)
    """Models that cannot encode a part or are not to be started, and why; an ensemble leaves them out."""
    rerank: Rerank | None = None
    """Known to the gateway alone: the second stage that orders what is found."""

    @property
    def inputs(self) -> list[EncoderInput]:
        """Parts that a model has to encode: those that the catalog does not hold."""
        return [part.content for part in self.parts if not isinstance(part.content, StoredPart)]

    @property
    def text(self) -> str:
        """Text of positive weight, joined; a keyword search cannot push away."""
        return " ".join(p.content for p in self.parts if isinstance(p.content, str) and p.weight > 0)

    @property
    def is_text_only(self) -> bool:
        """True where there is text of positive weight, and nothing but text."""
        return bool(self.text) and all(isinstance(part.content, str) for part in self.parts)

    @property
    def depth(self) -> int:
        """Products to find: those to the end of the page, and all that the second stage orders if it shows some."""
        end = self.offset + self.limit
        if self.rerank is None or self.offset >= self.rerank.depth:
            return end
        return max(end, self.rerank.depth)

    @property
    def has_threshold(self) -> bool:
        """True where only matches are wanted."""
        return self.score_threshold is not None or self.max_false_match_rate is not None

    def check(self) -> None:
        """Refuse options that do not apply to what is asked.

        Raises:
            InvalidInput: options of the ensemble for one model, two thresholds, a cosine for the ensemble, a
                keyword weight beside a threshold or without text, re-ranking without text.
        """
        if self.model != ENSEMBLE:
            for option, value in (("weights", self.weights), ("fusion", self.fusion)):
                if value is not None:
                    message = f"{option!r} applies to the ensemble only, not to model {self.model!r}"
                    raise InvalidInput(message).at(option)
        if self.score_threshold is not None:
            if self.max_false_match_rate is not None:
                message = "give either `score_threshold` or `max_false_match_rate`"
                raise InvalidInput(message).at("score_threshold")
            if self.model == ENSEMBLE:
                raise InvalidInput(
                    "cosines of different models cannot share a threshold; name one `model`, or give "
                    "`max_false_match_rate`, which the ensemble takes too"
                ).at("score_threshold")
        if self.keyword_weight and self.has_threshold:
            message = "a threshold is about vectors: leave `keyword_weight` out, or 0"
            raise InvalidInput(message).at("keyword_weight")
        if self.keyword_weight and not self.text:
            message = "a keyword weight needs text of a positive weight in the query"
            raise InvalidInput(message).at("keyword_weight")
        if self.rerank is not None and not self.text:
            message = "re-ranking compares images with a text: the query needs text of a positive weight"
            raise InvalidInput(message).at("rerank")


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Distinct products, best first, and how they were found."""

    hits: list[Hit]
    versions: list[EncoderInfo] = field(default_factory=list)
    """Model versions that answered."""
    weights: dict[str, float] = field(default_factory=dict)
    """Their shares, by model; the sum is 1."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Models, or the keyword search, that did not answer, and why."""
    incomplete: dict[str, str] = field(default_factory=dict)
    """Models that took part without their scores of some candidates, and why."""
    degraded: bool = False
    """True where one that should have answered did not, or not in full."""
    keyword_weight: float = 0.0
    """Share that the keyword search had in the order, 0 to 1."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """Smallest cosine of a match, by model."""
    timings_ms: dict[str, float] = field(default_factory=dict)
    embedded: Mapping[str, QueryVector] = field(default_factory=dict)
    """Vector of the query, by model, where one model was asked."""
    products: Mapping[str, Product] = field(default_factory=dict)
    """Products of the hits, by id, once the catalog was read."""
    reranked: Reranked | None = None
    """Outcome of the second stage; None where none was asked for."""


class ModelSearch:
    """Search with one encoder: the query becomes one vector, which is searched in its own collection."""

    def __init__(self, encoder: EncoderClient, store: VectorStore) -> None:
        self._encoder = encoder
        self._store = store

    async def search(self, query: SearchQuery) -> SearchResult:
        """Find the nearest `query.limit` distinct products.

        Raises:
            InvalidInput: a part is bad, or the parts cancel out.
            UnsupportedModality: the model cannot encode a part.
            Conflict: a stored part has no vector from this model version yet.
            ModelUnavailable, StoreUnavailable, DeadlineExceeded: not now.
        """
        embedded = query.embedded.get(self._encoder.name) or await self.embed(query)
        info = embedded.info
        with Stage("search", info.name) as stage:
            page = (query.limit, query.filter, query.exclude_products)
            read = self._store.search_products
            hits = await _read_of(info, read, info.collection, embedded.vector, *page)
        shares = {info.name: 1.0}
        if query.minimum_scores is not None:
            hits = matching(hits, {info.name: (info.collection, hits)}, shares, query.minimum_scores)
        return SearchResult(
            hits,
            [info],
            shares,
            timings_ms=embedded.timings_ms | {"search": stage.ms},
            embedded={self._encoder.name: embedded},
        )

    async def reach(self) -> None:
        """Return once the encoder has answered to a small image; same errors as `EncoderClient.encode`.

        Bytes behind the end of the file make it an image that no cache holds.
        """
        (answer,) = (await self._encoder.encode([PROBE + os.urandom(8)])).vectors
        # An encoder that takes no such image has answered.
        if isinstance(answer, VitrineError) and not isinstance(answer, InvalidInput):
            raise answer

    async def embed(self, query: SearchQuery) -> QueryVector:
        """Turn the parts into one vector: their weighted mean; same errors as `search`."""
        started = time.perf_counter()
        info, vectors, timings = await self._vectors(query)
        vector = weighted_mean(vectors, [part.weight for part in query.parts])
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

    async def _vectors(self, query: SearchQuery) -> tuple[EncoderInfo, list[Vector], dict[str, float]]:
        if inputs := query.inputs:
            encoded = await self._encoder.encode(inputs)
            info, timings, answers = encoded.info, dict(encoded.timings_ms), iter(encoded.vectors)
        else:
            info, timings, answers = await self._encoder.describe(), {}, iter(())
        vectors = []
        for index, part in enumerate(query.parts):
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
