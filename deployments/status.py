"""What is served, how far each collection has come, and whether the service is ready."""

import asyncio
import io
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from PIL import Image

from catalog.opening import Catalog
from core.ensemble import ENSEMBLE
from core.errors import Unavailable, VitrineError
from core.ports import EncoderClient, VectorStore
from core.search import Query, QueryPart
from core.store_check import StoreCheck
from core.types import EncoderInfo, LedgerCounts
from deployments.deadlines import ending_at
from deployments.encoders import EncoderSet
from deployments.ledger_counts import LedgerCountsSample
from deployments.searches import Ensemble

READY_TIMEOUT_S = 5.0
"""How long one check of readiness may take: probes give up soon after."""

_LATE = f"no answer within {READY_TIMEOUT_S:g} s"
_PROBE_SIDE = 32


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
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._encoders = encoders
        self._ready_coverage = ready_coverage
        self._counts = counts
        self._ensemble = ensemble
        self._check_store = check
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
        """Count products and pictures."""
        return await asyncio.to_thread(self._catalog.products.counts)

    async def ready(self) -> Readiness:
        """Search by one picture with every encoder and with the ensemble, and ask the catalog.

        Whoever asks while a check is under way gets its outcome: checks need no key, and must not add up.
        """
        if self._checking is None or self._checking.done():
            with ending_at(None):
                self._checking = asyncio.create_task(self._check())
        return await asyncio.shield(self._checking)

    async def _check(self) -> Readiness:
        names = ["catalog", "milvus", ENSEMBLE, *(encoder.name for encoder in self._encoders)]
        probe = _new_picture()
        checks = [self.counts(), asyncio.to_thread(self._ping_store), self._fused_search(probe)]
        passes = [self._pass(encoder, probe) for encoder in self._encoders]
        outcomes = await asyncio.gather(*(_timed(check) for check in [*checks, *passes]))
        return Readiness(
            problems={name: problem for name, (problem, _) in zip(names, outcomes, strict=True) if problem},
            timings_ms={name: ms for name, (_, ms) in zip(names, outcomes, strict=True)},
        )

    def _ping_store(self) -> None:
        self._store.ping()
        self._check_store.require()

    async def _fused_search(self, probe: bytes) -> None:
        # Members that are away are named by their own checks.
        await self._ensemble.search(Query((QueryPart(probe),), limit=1), None, None)

    async def _pass(self, encoder: EncoderClient, probe: bytes) -> None:
        encoded = await encoder.encode([probe])
        vector, collection = encoded.vectors[0], encoded.info.collection
        if isinstance(vector, VitrineError):
            raise vector
        counts = await self._counts.of(collection)
        if counts.missing > (1 - self._ready_coverage) * counts.pictures:
            live = await asyncio.to_thread(self._store.alias_target, encoder.name)
            raise Unavailable(_incomplete(encoded.info, counts, live))
        await asyncio.to_thread(self._store.search_products, collection, vector, 1)

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


async def _timed(check: Coroutine[Any, Any, object]) -> tuple[str | None, float]:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await check
        problem = None
    except TimeoutError:
        problem = _LATE
    except VitrineError as error:
        problem = error.message
    return problem, (time.perf_counter() - started) * 1e3


def _incomplete(info: EncoderInfo, counts: LedgerCounts, live: str | None) -> str:
    held = f"collection {info.collection} holds {counts.indexed} of {counts.pictures} pictures"
    if live is None or live == info.collection:
        return held
    return (
        f"{info.name} serves fingerprint {info.fingerprint}, but {held}; the live collection is {live}, "
        "of other weights or settings: build the new collection, or go back to what the live one was made with"
    )


def _new_picture() -> bytes:
    """Noise that no encoder has seen, so that none can answer from its cache."""
    noise = Image.frombytes("RGB", (_PROBE_SIDE, _PROBE_SIDE), os.urandom(3 * _PROBE_SIDE**2))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    return buffer.getvalue()
