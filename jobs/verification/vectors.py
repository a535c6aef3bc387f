"""Comparison of stored vectors with newly encoded ones, in an actor that holds the model."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from catalog.opening import Catalog, open_catalog
from core.concurrency import batched_by_bytes
from core.errors import ConfigError, ModelUnavailable, VitrineError
from core.ports import EncoderClient, VectorStore
from core.types import EncoderInfo, Vector, is_unit
from jobs.runner.cluster import own_errors
from jobs.runner.settings import EncoderSettings, Settings
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import load_encoder
from models.local_encoder import LocalEncoder

_MIN_COSINE, _MIN_COSINE_ROUNDED = 0.9999, 0.99
"""Least cosine of a stored vector with its new encoding: by fp32 weights, and by rounded ones or other decoders.

Batches and processors differ in the last digits. The pixels of a GPU, which builds of some versions decode on, differ
by more from those that are compared here.
"""
_BATCH = 32

KeyedFile = tuple[str, str, int]
"""A row key with the sha256 and the size of the image's file."""


@dataclass
class Compared:
    """Number of compared vectors, and the keys of those that differ."""

    vectors: int = 0
    changed: list[str] = field(default_factory=list)


async def compare_vectors(
    encoder: EncoderClient,
    info: EncoderInfo,
    catalog: Catalog,
    store: VectorStore,
    files: Sequence[KeyedFile],
    least: float,
) -> Compared:
    """Encode images and compare the vectors with those in Milvus; below the cosine `least` one has changed.

    Images that change meanwhile, cannot be encoded, or have a missing or damaged file are skipped.
    """
    compared = Compared()
    for batch in batched_by_bytes(files, lambda file: file[2], _BATCH):
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
                if not is_same(stored[key], vector, least):
                    compared.changed.append(key)
    return compared


def least_cosine(config: EncoderConfig) -> float:
    """Return the least cosine of two encodings of an image by the same version."""
    is_exact = config.precision == "fp32" and not config.decode_on_gpu
    return _MIN_COSINE if is_exact else _MIN_COSINE_ROUNDED


def is_same(stored: Vector, fresh: Vector, least: float) -> bool:
    """Return whether a stored float32 vector and the new unit vector (dimension,) have at least such a cosine."""
    if stored.shape != fresh.shape or not is_unit(stored):
        return False
    kept = stored.astype(np.float64)
    return float(kept @ fresh.astype(np.float64)) / float(np.linalg.norm(kept)) >= least


def _read(catalog: Catalog, sha256: str) -> bytes | None:
    data = catalog.blobs.find(sha256)
    return data if data is not None and hashlib.sha256(data).hexdigest() == sha256 else None


Compare = Callable[[Sequence[KeyedFile]], Compared]
OpenChecker = Callable[[EncoderSettings, EncoderInfo], AbstractContextManager[Compare | None]]
"""Opens the comparison for a version; None where its settings produce another version or do not load."""


class VectorChecker:
    """Actor that holds the model and compares vectors."""

    def __init__(self, settings: Settings, encoder: EncoderSettings, info: EncoderInfo) -> None:
        self._info = info
        self._catalog = open_catalog(settings.catalog)
        self._store = MilvusStore(settings.milvus)
        self._config = encoder.config
        self._client: LocalEncoder | None = None

    def serves(self) -> bool:
        """Load the model; returns whether it is the expected version."""
        return asyncio.run(self._encoder().describe()).fingerprint == self._info.fingerprint

    def compare(self, files: Sequence[KeyedFile]) -> Compared:
        """Encode images and compare the vectors with those in Milvus."""
        least = least_cosine(self._config)
        work = compare_vectors(self._encoder(), self._info, self._catalog, self._store, files, least)
        return asyncio.run(work)

    def _encoder(self) -> LocalEncoder:
        if self._client is None:
            self._client = LocalEncoder(load_encoder(self._config.uncompiled), self._config.decode_threads)
        return self._client


def on_cluster(settings: Settings) -> OpenChecker:
    """Compare vectors in an actor that holds the model while a version is checked."""

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
