"""An encoder on the cluster that compares vectors with their pictures, loaded once a version."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import ray

from catalog.opening import open_catalog
from core.errors import ConfigError, ModelUnavailable
from core.types import EncoderInfo
from jobs.cluster import own_errors
from jobs.settings import EncoderSettings, Settings
from jobs.verification.vectors import Compared, KeyedFile, compare_vectors
from milvus.store import MilvusStore
from models.local import LocalEncoder
from models.registry import load_encoder

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
        """Encode pictures and compare with what Milvus holds."""
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
