"""Catalog with collections of several versions, for tests of comparisons; no Ray."""

import asyncio
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalog.opening import Catalog, open_catalog
from core.config import BulkConfig, EvaluationConfig
from core.index_rows import IndexRows
from core.indexing import Indexer
from core.jobs import EnsembleArgs, EvaluateArgs
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput
from jobs.evaluation.evaluate import evaluate
from jobs.evaluation.ranking import Scores, encode_here, match_here
from jobs.evaluation.result import EvaluationResult
from jobs.runner.context import JobContext, take_up
from jobs.runner.settings import EncoderSettings, Settings
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from tests.support.catalog_fixtures import sqlite_in

BLIND = "blind"
"""Begins the checkpoint of a version that sees nothing: its vectors are noise, the same for the same bytes."""


def encode(encoder: EncoderSettings, inputs: Sequence[EncoderInput]) -> Encoded:
    encoded = encode_here(encoder.config, inputs)
    if not encoder.config.checkpoint.startswith(BLIND):
        return encoded
    return Encoded(encoded.info, [noise(each, encoded.info.dimension) for each in inputs])


def noise(content: EncoderInput, dimension: int) -> np.ndarray:
    data = content if isinstance(content, bytes) else str(content).encode()
    row = np.random.default_rng(list(hashlib.sha256(data).digest())).standard_normal(dimension)
    return (row / np.linalg.norm(row)).astype(np.float32)


class Direct:
    """An encoder client over `encode`."""

    def __init__(self, encoder: EncoderSettings) -> None:
        self.name = encoder.config.name
        self._encoder = encoder

    async def describe(self) -> EncoderInfo:
        return (await asyncio.to_thread(encode, self._encoder, [])).info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        # The models batch with an event loop of their own.
        return await asyncio.to_thread(encode, self._encoder, inputs)

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        raise NotImplementedError


@dataclass
class Bench:
    """What a comparison works on."""

    settings: Settings
    catalog: Catalog
    store: MilvusStore

    def index(self, encoder: EncoderSettings, limit: int = 10_000) -> str:
        """Fill the version's collection with up to `limit` images; returns its name."""
        client = Direct(encoder)
        info = asyncio.run(client.describe())
        IndexRows(self.store, self.catalog.ledger).prepare(info)
        items = self.catalog.ledger.missing(info.collection, limit)
        indexer = Indexer(client, self.store, self.catalog.ledger, self.catalog.blobs)
        for start in range(0, len(items), 64):
            asyncio.run(indexer.index(items[start : start + 64]))
        return info.collection

    def evaluate(self, **args: object) -> EvaluationResult:
        checked = EvaluateArgs.model_validate(args)
        with take_up(self.catalog.jobs, "evaluate", {"run": uuid.uuid4().hex}) as run:
            return evaluate(JobContext(run, self.settings, self.catalog), checked, encode, match=self._match)

    def _match(self, encoder: EncoderSettings, wanted: Mapping[str, Sequence[str]]) -> Scores:
        return match_here(encoder.config, self.settings.catalog.blobs_url, wanted)

    def close(self) -> None:
        for info in self.catalog.ledger.versions():
            self.store.drop_collection(info.collection)
        self.store.close()
        self.catalog.close()


def bench(
    folder: Path,
    milvus_uri: str,
    encoders: Sequence[EncoderConfig],
    evaluation: EvaluationConfig,
    ensemble: EnsembleArgs | None = None,
) -> Bench:
    settings = Settings(
        catalog=sqlite_in(folder),
        milvus=MilvusConfig(uri=milvus_uri),
        bulk=BulkConfig(),
        encoders={each.name: EncoderSettings(each, num_cpus=1, num_gpus=0) for each in encoders},
        evaluation=evaluation,
        ensemble=ensemble,
    )
    return Bench(settings, open_catalog(settings.catalog), MilvusStore(settings.milvus))
