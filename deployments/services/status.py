"""Status of models and collections, counts of the ledger, and readiness."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from catalog.ledger import SqlLedger
from catalog.opening import Catalog
from core.concurrency import TtlCache
from core.errors import Unavailable, UnsupportedModality, VitrineError, expected
from core.ports import EncoderClient, VectorStore
from core.search import ENSEMBLE, QueryPart, QueryVector, SearchQuery
from core.store_check import StoreCheck
from core.types import PROBE, EncoderInfo, LedgerCounts
from deployments.replicas.handles import Scale, Scales
from deployments.services.encoders import EncoderSet
from deployments.services.search import Ensemble

_SHARE = 20
"""Counts are kept at least so many times as long as counting took, so it takes at most 5 % of the database's
time."""


def cached_counts(ledger: SqlLedger, ttl_s: float) -> TtlCache[str, LedgerCounts]:
    """Return a cache of the ledger's counts by collection, for all who ask."""
    return TtlCache(lambda collection: asyncio.to_thread(ledger.counts, collection), ttl_s, _SHARE)


READY_TIMEOUT_S = 5.0
"""Time limit of one readiness check. Probes give up soon after."""

_LEAST_S = 1.0
"""Time limit for Serve's answer, and the least for the ensemble after an encoder that was late."""
_LATE = f"no answer within {READY_TIMEOUT_S:g} s"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model: its version and how much of the catalog that covers, or the problem."""

    name: str
    info: EncoderInfo | None
    counts: LedgerCounts | None
    live: bool
    problem: str | None
    captions: bool | None
    """True where it writes captions; None where that is not known."""
    reranks: bool | None
    """True where it has a matching head; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Outcome of one readiness check; `problems` is empty when the service is ready."""

    problems: dict[str, str]
    timings_ms: dict[str, float]


class Status:
    """Checks every part of the service."""

    def __init__(
        self,
        catalog: Catalog,
        store: VectorStore,
        encoders: EncoderSet,
        ensemble: Ensemble,
        ready_coverage: float,
        counts: TtlCache[str, LedgerCounts],
        check: StoreCheck,
        scale: Callable[[str], Awaitable[Scale]] | None = None,
        last_info: Callable[[str, Scale], EncoderInfo | None] | None = None,
    ) -> None:
        """`scale` returns the state of an encoder's application; by default Serve is asked.

        `last_info` returns what an encoder in this state said of itself when it last ran, as far as that is known.
        """
        self._catalog = catalog
        self._store = store
        self._encoders = encoders
        self._ready_coverage = ready_coverage
        self._counts = counts
        self._ensemble = ensemble
        self._check_store = check
        self._scale = Scales().of if scale is None else scale
        self._last_info = last_info
        # Shared by all who ask meanwhile, and not kept.
        self._readiness = TtlCache[None, Readiness](lambda _: self._check(), ttl_s=0.0)

    async def models(self) -> list[ModelStatus]:
        """Describe every configured encoder. One that is scaled to zero stays so."""
        return list(await asyncio.gather(*(self._model(encoder) for encoder in self._encoders)))

    async def versions(self, model: str) -> list[tuple[EncoderInfo, LedgerCounts, bool]]:
        """List the registered versions of a model, oldest first, with their counts and whether each is live.

        Raises:
            NotFound: the model is not configured.
        """
        self._encoders.get(model)
        live, known = await asyncio.to_thread(self._known_versions, model)
        counts = await asyncio.gather(*(self._counts.get(info.collection) for info in known))
        return [(i, c, i.collection == live) for i, c in zip(known, counts, strict=True)]

    async def counts(self) -> tuple[int, int]:
        """Count products and images."""
        return await asyncio.to_thread(self._catalog.products.counts)

    async def ready(self) -> Readiness:
        """Search by one image with every encoder and with the ensemble, and read the catalog.

        An encoder that is scaled to zero is ready and stays so. Checks need no key, so they must not add up: those
        at the same time are one, and a replica runs its model for them once in some seconds.
        """
        return await self._readiness.get(None)

    async def _check(self) -> Readiness:
        encoders = list(self._encoders)
        embedded: dict[str, QueryVector] = {}
        checks = {"catalog": self.counts(), "milvus": asyncio.to_thread(self._ping_store)}
        passes = {encoder.name: self._pass(encoder, embedded) for encoder in encoders}
        outcomes = await _timed_all({**checks, **passes}, READY_TIMEOUT_S)
        # After the passes, since it searches with their embeddings and asks no model again.
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
        others = {each.name: "not available" for each in self._encoders if each.name not in embedded}
        query = SearchQuery((QueryPart(PROBE),), limit=1, embedded=embedded, not_asked=others)
        try:
            await self._ensemble.search(query)
        except UnsupportedModality:
            # The ensemble works. The encoders that are missing are reported by their own checks.
            return

    async def _pass(self, encoder: EncoderClient, embedded: dict[str, QueryVector]) -> None:
        if (await self._scale_of(encoder.name)).is_idle:
            return
        encoded = await encoder.encode([PROBE])
        vector, collection = encoded.vectors[0], encoded.info.collection
        if isinstance(vector, VitrineError):
            raise vector
        embedded[encoder.name] = QueryVector(encoded.info, vector)
        counts = await self._counts.get(collection)
        if counts.missing > (1 - self._ready_coverage) * counts.images:
            live = await asyncio.to_thread(self._store.alias_target, encoder.name)
            raise Unavailable(_incomplete(encoded.info, counts, live))
        await asyncio.to_thread(self._store.search_products, collection, vector, 1)

    async def _scale_of(self, name: str) -> Scale:
        try:
            # Shorter than a check, since models work while Serve's controller is away.
            async with asyncio.timeout(_LEAST_S):
                return await self._scale(name)
        except TimeoutError:
            return Scale()

    async def _model(self, encoder: EncoderClient) -> ModelStatus:
        try:
            # A model that does not answer is reported, not waited for.
            async with asyncio.timeout(READY_TIMEOUT_S):
                info, by_register = await self._describe(encoder)
            await asyncio.to_thread(self._check_store.require)
            counts = await self._counts.get(info.collection)
            live = await asyncio.to_thread(self._store.alias_target, info.name) == info.collection
        except TimeoutError:
            return ModelStatus(encoder.name, None, None, False, _LATE, None, None)
        except VitrineError as error:
            return ModelStatus(encoder.name, None, None, False, error.message, None, None)
        captions, reranks = (
            None if by_register else each is not None for each in (info.captions, info.matching)
        )
        return ModelStatus(encoder.name, info, counts, live, None, captions, reranks)

    async def _describe(self, encoder: EncoderClient) -> tuple[EncoderInfo, bool]:
        """Describe an encoder, with whether that is by the register, which does not know of captions and heads.

        One that is scaled to zero is not started: it is as it last said, or else the live version by the register.
        """
        scale = await self._scale_of(encoder.name)
        if scale.is_idle:
            info = None if self._last_info is None else self._last_info(encoder.name, scale)
            if info is not None:
                return info, False
            live, known = await asyncio.to_thread(self._known_versions, encoder.name)
            for info in known:
                if info.collection == live:
                    return info, True
        return await encoder.describe(), False

    def _known_versions(self, model: str) -> tuple[str | None, list[EncoderInfo]]:
        live = self._store.alias_target(model)
        return live, [info for info in self._catalog.ledger.versions() if info.name == model]


async def _timed_all(
    checks: Mapping[str, Coroutine[Any, Any, object]], limit_s: float
) -> dict[str, tuple[str | None, float]]:
    """Make checks side by side; return for each its problem, if there is one, and its time in milliseconds."""

    async def timed(name: str, check: Coroutine[Any, Any, object]) -> tuple[str | None, float]:
        started, problem = time.perf_counter(), None
        try:
            async with asyncio.timeout(limit_s):
                await check
        except TimeoutError:
            problem = f"no answer within {limit_s:.3g} s"
        except Exception as error:
            problem = expected(error, f"the check of {name}").message
        return problem, (time.perf_counter() - started) * 1e3

    outcomes = await asyncio.gather(*(timed(name, check) for name, check in checks.items()))
    return dict(zip(checks, outcomes, strict=True))


def _incomplete(info: EncoderInfo, counts: LedgerCounts, live: str | None) -> str:
    held = f"collection {info.collection} holds {counts.indexed} of {counts.images} images"
    if live is None or live == info.collection:
        return held
    return (
        f"{info.name} serves fingerprint {info.fingerprint}, but {held}; the live collection is {live}, "
        "of other weights or settings: build the new collection, or go back to what the live one was made with"
    )
