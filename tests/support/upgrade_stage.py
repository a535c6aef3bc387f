"""Service as an upgrade sees it, in this process: a store in memory, and a Serve that can fail."""

import asyncio
import io
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from catalog.opening import Catalog
from catalog.products import PutProduct
from core.config import BulkConfig
from core.errors import Unavailable
from core.indexing import Indexer
from core.types import EncoderInfo, NewImage
from jobs.runner.context import JobRun, take_up
from jobs.runner.settings import EncoderSettings, Settings
from jobs.upgrade.rollout import VersionRollout
from jobs.upgrade.serving import Change, RolloutStatus, arguments
from milvus.config import MilvusConfig
from milvus.memory import MemoryStore
from tests.support.catalog_fixtures import new_catalog
from tests.support.indexed import repair
from tests.support.local_encoder import LocalEncoder

MODEL = "fake"
BROKEN = "broken"


class Killed(BaseException):
    """The end of a process, which no handler of errors notices."""


def configuration(checkpoint: str) -> dict[str, Any]:
    args = {"name": MODEL, "family": "fake", "checkpoint": checkpoint, "threads": 2}
    encoder = {"name": MODEL, "import_path": "deployments.app:build_encoder", "args": args}
    return {"applications": [encoder, {"name": "gateway", "import_path": "deployments.app:build_gateway"}]}


@dataclass
class FakeServe:
    """Serves the checkpoint that its configuration names, some looks after it was asked to."""

    running: dict[str, Any]
    looks_left: int = 0
    serves: str = ""
    applied: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.serves = self._checkpoint

    def config(self) -> dict[str, Any]:
        return self.running

    def apply(self, config: Mapping[str, Any]) -> None:
        self.running, self.looks_left = dict(config), 1
        self.applied.append(self.running)

    def rollout(self, model: str) -> RolloutStatus:
        if self._checkpoint == BROKEN:
            return RolloutStatus("DEPLOY_FAILED", "the weights do not load", len(self.applied))
        if self.looks_left:
            self.looks_left -= 1
            return RolloutStatus("DEPLOYING", "")
        self.serves = self._checkpoint
        return RolloutStatus("RUNNING", "")

    def describe(self, model: str) -> EncoderInfo:
        if not self.serves:
            raise Unavailable("no replica")
        return info(self.serves)

    @property
    def _checkpoint(self) -> str:
        return str(arguments(self.running, MODEL)["checkpoint"])


@dataclass
class Stage:
    """Everything that outlives a killed upgrade."""

    catalog: Catalog
    store: MemoryStore
    serve: FakeServe

    def put(self, *names: str) -> None:
        self.catalog.products.write([PutProduct(name, "", "", {}, [image(name)]) for name in names])

    def build(self, checkpoint: str) -> None:
        encoder = LocalEncoder(checkpoint=checkpoint)
        indexer = Indexer(encoder, self.store, self.catalog.ledger, self.catalog.blobs)
        asyncio.run(repair(indexer))

    @property
    def live(self) -> str | None:
        return self.store.alias_target(MODEL)

    def expected_keys(self) -> set[str]:
        pages = self.catalog.products.page(1000)
        return {f"{each.image_id}:{each.revision}" for product in pages for each in product.images}

    def keys(self, checkpoint: str) -> set[str]:
        return set(self.store.keys(info(checkpoint).collection))

    @contextmanager
    def job(self, kind: str = "promote", **args: Any) -> Iterator[JobRun]:
        with take_up(self.catalog.jobs, kind, {"model": MODEL, **args}) as run:
            yield run

    def promote(
        self, checkpoint: str, spy: Callable[[Any], Any] = lambda part: part, **options: Any
    ) -> Change:
        with self.job(checkpoint=checkpoint) as run:
            parts = run, self.catalog, spy(self.store), spy(self.serve)
            version = {"family": "fake", "checkpoint": checkpoint}
            options = {"apply": True, "wait_s": 5, **options}
            build = partial(self.build, checkpoint)
            return VersionRollout(*parts, info(checkpoint), version, build, 0, **options).proceed()


@contextmanager
def stage(folder: Path, products: int = 6) -> Iterator[Stage]:
    catalog = new_catalog(folder)
    made = Stage(catalog, MemoryStore(), FakeServe(configuration("old")))
    made.put(*(f"p{number}" for number in range(products)))
    made.build("old")
    with pytest.MonkeyPatch.context() as patch:
        # The Serve of this stage needs no time between two looks.
        patch.setattr("jobs.upgrade.rollout._LOOK_S", 0.0)
        yield made
    catalog.close()


def job_settings(encoder: EncoderSettings | None = None, **parts: Any) -> Settings:
    """Settings of a job whose catalog and Milvus are handed to it."""
    encoders = {} if encoder is None else {MODEL: encoder}
    nowhere = MilvusConfig(uri="http://127.0.0.1:1")
    return Settings(
        **{"catalog": None, "milvus": nowhere, "bulk": BulkConfig(), "encoders": encoders, **parts}
    )


def info(checkpoint: str) -> EncoderInfo:
    return asyncio.run(LocalEncoder(checkpoint=checkpoint).describe())


def image(seed: str) -> NewImage:
    buffer = io.BytesIO()
    color = tuple(random.Random(seed).randrange(256) for _ in range(3))
    Image.new("RGB", (8, 8), color).save(buffer, "PNG")
    return NewImage(buffer.getvalue(), "image/png", 8, 8)
