"""Comparison of stored vectors with their images encoded anew, by an actor that holds the model."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from catalog.opening import Catalog, open_catalog
from core.batching import batched, batched_by_bytes
from core.errors import ConfigError, ModelUnavailable, NotFound, VitrineError
from core.ports import EncoderClient, VectorStore
from core.types import EncoderInfo, Vector
from core.vectors import is_unit
from jobs.runner.cluster import own_errors
from jobs.runner.settings import EncoderSettings, Settings
from milvus.store import MilvusStore
from models.encoder import LocalEncoder
from models.registry import load_encoder

MIN_COSINE = {"fp32": 0.9999}
"""Cosine of a vector with itself made anew: batches and processors differ in the last digits only."""
MIN_COSINE_ROUNDED = 0.99
"""The same where weights are rounded to less than fp32."""
_BATCH = 32

KeyedFile = tuple[str, str, int]
"""A row key with the sha256 and the bytes of the image's file."""


@dataclass
class Compared:
    """How many vectors were compared, and the keys of those that differ."""

    vectors: int = 0
    changed: list[str] = field(default_factory=list)


async def compare_vectors(
    encoder: EncoderClient,
    info: EncoderInfo,
    catalog: Catalog,
    store: VectorStore,
    files: Sequence[KeyedFile],
) -> Compared:
    """Encode images and compare with what Milvus holds.

    An image that changes or goes meanwhile, that cannot be encoded, or whose file is missing or damaged,
    says nothing.
    """
    compared = Compared()
    for batch in (
        some for part in batched(files, _BATCH) for some in batched_by_bytes(part, lambda file: file[2])
    ):
        contents = await asyncio.gather(
            *(asyncio.to_thread(_read, catalog, sha256) for _, sha256, _ in batch)
        )
        sound = {key: data for (key, _, _), data in zip(batch, contents, strict=True) if data is not None}
        stored = await asyncio.to_thread(store.fetch, info.collection, list(sound))
        keys = [key for key in sound if key in stored]
        fresh = await encoder.encode([sound[key] for key in keys])
        for key, vector in zip(keys, fresh.vectors, strict=True):
            if not isinstance(vector, VitrineError):
                compared.vectors += 1
                if not is_same(stored[key], vector, info.precision):
                    compared.changed.append(key)
    return compared


def is_same(stored: Vector, fresh: Vector, precision: str) -> bool:
    """Tell whether a stored float32 vector is the unit vector (dimension,) that was made anew."""
    if stored.shape != fresh.shape or not is_unit(stored):
        return False
    kept = stored.astype(np.float64)
    least = MIN_COSINE.get(precision, MIN_COSINE_ROUNDED)
    return float(kept @ fresh.astype(np.float64)) / float(np.linalg.norm(kept)) >= least


def _read(catalog: Catalog, sha256: str) -> bytes | None:
    try:
        data = catalog.blobs.get(sha256)
    except NotFound:
        return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


Compare = Callable[[Sequence[KeyedFile]], Compared]
OpenChecker = Callable[[EncoderSettings, EncoderInfo], AbstractContextManager[Compare | None]]
"""Gives what compares the vectors of a version; None where its settings give another version or none."""


class VectorChecker:
    """What one actor does: it holds the model, and compares what it is told."""

    def __init__(self, settings: Settings, encoder: EncoderSettings, info: EncoderInfo) -> None:
        self._info = info
        self._catalog = open_catalog(settings.catalog)
        self._store = MilvusStore(settings.milvus)
        self._config = encoder.config
        self._client: LocalEncoder | None = None

    def serves(self) -> bool:
        """Load the model, and tell whether it is the version."""
        return asyncio.run(self._encoder().describe()).collection == self._info.collection

    def compare(self, files: Sequence[KeyedFile]) -> Compared:
        """Encode images and compare with what Milvus holds."""
        work = compare_vectors(self._encoder(), self._info, self._catalog, self._store, files)
        return asyncio.run(work)

    def _encoder(self) -> LocalEncoder:
        if self._client is None:
            self._client = LocalEncoder(load_encoder(self._config), self._config.decode_threads)
        return self._client


def on_cluster(settings: Settings) -> OpenChecker:
    """Have an actor hold the model for as long as a version is looked at."""

    @contextmanager
    def opened(encoder: EncoderSettings, info: EncoderInfo) -> Iterator[Compare | None]:
        kind = ray.remote(max_restarts=1, max_task_retries=1, **encoder.resources(settings.bulk))
        actor: Any = kind(VectorChecker).remote(settings, encoder, info)

        def compare(files: Sequence[KeyedFile]) -> Compared:
            with own_errors():
                compared: Compared = ray.get(actor.compare.remote(list(files)))
            return compared

        try:
            yield compare if _serves(actor) else None
        finally:
            ray.kill(actor)

    return opened


def _serves(actor: Any) -> bool:
    try:
        with own_errors():
            return bool(ray.get(actor.serves.remote()))
    except (ConfigError, ModelUnavailable):
        return False
