"""Status of models and collections, counts of the ledger, and readiness."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from catalog.opening import Catalog
from core.concurrency import start_shared
from core.errors import Unavailable, UnsupportedModality, VitrineError, expected
from core.ports import EncoderClient, Ledger, VectorStore
from core.search import ENSEMBLE, QueryPart, QueryVector, SearchQuery
from core.store_check import StoreCheck
from core.types import PROBE, EncoderInfo, LedgerCounts
from deployments.replicas.handles import Rest, Rests
from deployments.services.encoders import EncoderSet
from deployments.services.search import Ensemble

_SHARE = 20
"""Counts are believed at least so many times as long as counting took: it gets 5 % of the database's time
at most, however large the catalog and however many ask."""


@dataclass(slots=True)
class _Sample:
    counts: asyncio.Task[LedgerCounts]
    believed_until: float = float("inf")


class LedgerCountsSample:
    """Counts each collection at most once in a while; all who ask meanwhile share what was found."""

    def __init__(self, ledger: Ledger, ttl_s: float) -> None:
        self._ledger = ledger
        self._ttl_s = ttl_s
        self._samples: dict[str, _Sample] = {}

    async def of(self, collection: str) -> LedgerCounts:
        """Tell how far a collection has come; may raise Unavailable."""
        sample = self._samples.get(collection)
        if sample is None or time.monotonic() >= sample.believed_until:
            sample = _Sample(start_shared(self._count(collection)))
            self._samples[collection] = sample
        # Who goes away must not take the counts from the others.
        return await asyncio.shield(sample.counts)

    async def _count(self, collection: str) -> LedgerCounts:
        started = time.monotonic()
        believed_s = 0.0
        try:
            counts = await asyncio.to_thread(self._ledger.counts, collection)
            believed_s = max(self._ttl_s, _SHARE * (time.monotonic() - started) if self._ttl_s else 0.0)
            return counts
        finally:
            # A failure is believed by those alone who wait for it.
            self._samples[collection].believed_until = time.monotonic() + believed_s


READY_TIMEOUT_S = 5.0
"""How long one check of readiness may take: probes give up soon after."""

_LEAST_S = 1.0
"""How long Serve may take to say who sleeps, and the ensemble at least, after an encoder that was late."""
_LATE = f"no answer within {READY_TIMEOUT_S:g} s"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model: which version serves and how much of the catalog it covers, or why it is not ready."""

    name: str
    info: EncoderInfo | None
    counts: LedgerCounts | None
    live: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """The outcome of one real pass through everything; `problems` is empty when the service is ready."""

    problems: dict[str, str]
    timings_ms: dict[str, float]


class Status:
    """Asks every part of the service how it is."""

    def __init__(
        self,
        catalog: Catalog,
        store: VectorStore,
        encoders: EncoderSet,
        ensemble: Ensemble,
        ready_coverage: float,
        counts: LedgerCountsSample,
        check: StoreCheck,
        rest: Callable[[str], Awaitable[Rest]] | None = None,
    ) -> None:
        """`rest` says which encoders sleep; by default Serve is asked."""
        self._catalog = catalog
        self._store = store
        self._encoders = encoders
        self._ready_coverage = ready_coverage
        self._counts = counts
        self._ensemble = ensemble
        self._check_store = check
        self._rest = Rests().of if rest is None else rest
        self._checking: asyncio.Task[Readiness] | None = None

    async def models(self) -> list[ModelStatus]:
        """Describe every configured encoder."""
        return list(await asyncio.gather(*(self._model(encoder) for encoder in self._encoders)))

    async def versions(self, model: str) -> list[tuple[EncoderInfo, LedgerCounts, bool]]:
        """List the versions of a model that the catalog knows, oldest first: what, how far, and whether live.

        Raises:
            NotFound: the model is not configured.
        """
        self._encoders.get(model)
        live, known = await asyncio.to_thread(self._known_versions, model)
        counts = await asyncio.gather(*(self._counts.of(info.collection) for info in known))
        return [(i, c, i.collection == live) for i, c in zip(known, counts, strict=True)]

    async def counts(self) -> tuple[int, int]:
        """Count products and images."""
        return await asyncio.to_thread(self._catalog.products.counts)

    async def ready(self) -> Readiness:
        """Search by one image with every encoder and with the ensemble, and ask the catalog.

        An encoder that was scaled to zero is ready and stays asleep. Whoever asks while a check is under way gets
        its outcome, and a replica runs its model for a check once in some seconds: checks need no key, and must
        not add up.
        """
        if self._checking is None or self._checking.done():
            self._checking = start_shared(self._check())
        return await asyncio.shield(self._checking)

    async def _check(self) -> Readiness:
        encoders = list(self._encoders)
        embedded: dict[str, QueryVector] = {}
        checks = {"catalog": self.counts(), "milvus": asyncio.to_thread(self._ping_store)}
        passes = {encoder.name: self._pass(encoder, embedded) for encoder in encoders}
        outcomes = await _timed_all({**checks, **passes}, READY_TIMEOUT_S)
        # Behind the passes, since it searches with what they have made of the image: it asks no model again.
        left_s = READY_TIMEOUT_S - max(ms for _, ms in outcomes.values()) / 1e3
        outcomes |= await _timed_all({ENSEMBLE: self._fused_search(embedded)}, max(left_s, _LEAST_S))
        names = ["catalog", "milvus", ENSEMBLE, *passes]
        return Readiness(
            problems={name: problem for name in names if (problem := outcomes[name][0])},
            timings_ms={name: outcomes[name][1] for name in names},
        )

    def _ping_store(self) -> None:
        self._store.ping()
        self._check_store.require()

    async def _fused_search(self, embedded: Mapping[str, QueryVector]) -> None:
        others = {each.name: "it sleeps or is away" for each in self._encoders if each.name not in embedded}
        query = SearchQuery((QueryPart(PROBE),), limit=1, embedded=embedded, not_asked=others)
        try:
            await self._ensemble.search(query)
        except UnsupportedModality:
            # It works, and has nobody to ask: those that are away are named by their own checks.
            return

    async def _pass(self, encoder: EncoderClient, embedded: dict[str, QueryVector]) -> None:
        if await self._sleeps(encoder.name):
            return
        encoded = await encoder.encode([PROBE])
        vector, collection = encoded.vectors[0], encoded.info.collection
        if isinstance(vector, VitrineError):
            raise vector
        embedded[encoder.name] = QueryVector(encoded.info, vector)
        counts = await self._counts.of(collection)
        if counts.missing > (1 - self._ready_coverage) * counts.images:
            live = await asyncio.to_thread(self._store.alias_target, encoder.name)
            raise Unavailable(_incomplete(encoded.info, counts, live))
        await asyncio.to_thread(self._store.search_products, collection, vector, 1)

    async def _sleeps(self, name: str) -> bool:
        try:
            # Less than the check may take: while Serve's controller is away, models work all the same.
            async with asyncio.timeout(_LEAST_S):
                return (await self._rest(name)).is_sound
        except TimeoutError:
            return False

    async def _model(self, encoder: EncoderClient) -> ModelStatus:
        try:
            # Who asks for the state of things is told of a model that is away, and does not wait for it.
            async with asyncio.timeout(READY_TIMEOUT_S):
                info = await encoder.describe()
            await asyncio.to_thread(self._check_store.require)
            counts = await self._counts.of(info.collection)
            live = await asyncio.to_thread(self._store.alias_target, info.name) == info.collection
        except TimeoutError:
            return ModelStatus(encoder.name, None, None, False, _LATE)
        except VitrineError as error:
            return ModelStatus(encoder.name, None, None, False, error.message)
        return ModelStatus(encoder.name, info, counts, live, None)

    def _known_versions(self, model: str) -> tuple[str | None, list[EncoderInfo]]:
        live = self._store.alias_target(model)
        return live, [info for info in self._catalog.ledger.versions() if info.name == model]


async def _timed_all(
    checks: Mapping[str, Coroutine[Any, Any, object]], limit_s: float
) -> dict[str, tuple[str | None, float]]:
    outcomes = await asyncio.gather(*(_timed(name, check, limit_s) for name, check in checks.items()))
    return dict(zip(checks, outcomes, strict=True))


async def _timed(name: str, check: Coroutine[Any, Any, object], limit_s: float) -> tuple[str | None, float]:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(limit_s):
            await check
        problem = None
    except TimeoutError:
        problem = f"no answer within {limit_s:.3g} s"
    except Exception as error:
        problem = expected(error, f"the check of {name}").message
    return problem, (time.perf_counter() - started) * 1e3


def _incomplete(info: EncoderInfo, counts: LedgerCounts, live: str | None) -> str:
    held = f"collection {info.collection} holds {counts.indexed} of {counts.images} images"
    if live is None or live == info.collection:
        return held
    return (
        f"{info.name} serves fingerprint {info.fingerprint}, but {held}; the live collection is {live}, "
        "of other weights or settings: build the new collection, or go back to what the live one was made with"
    )
