"""Job `plan`: try a candidate on some images, and say what it changes and costs; it writes nothing."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from catalog.opening import Catalog, open_catalog
from core.batching import batched, batched_by_bytes
from core.errors import NotFound
from core.jobs import JobArgs, PlanArgs
from core.types import EncoderInfo, IndexItem
from jobs.runner.cluster import own_errors
from jobs.runner.context import JobContext, open_store
from jobs.runner.settings import EncoderSettings, Settings
from milvus.store import MilvusStore
from models.encoder import LocalEncoder
from models.registry import load_encoder

_NO_COLLECTION = ""
"""Every image is missing in it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was learned; `images_per_s` is None where the catalog holds no image that can be read."""

    info: EncoderInfo
    images: int
    startup_s: float
    images_per_s: float | None


def try_out(settings: Settings, encoder: EncoderSettings, images: int) -> Trial:
    """Read, decode and encode some images of the catalog on the cluster, and drop the vectors.

    Milvus and the ledger are left alone, so a build is a little slower than this says where they are slow.
    """
    asked = time.time()
    task = ray.remote(max_retries=1, **encoder.resources(settings.bulk))(_try)
    with own_errors():
        trial: Trial = ray.get(task.remote(settings, encoder, images, asked))
    return trial


def _try(settings: Settings, encoder: EncoderSettings, images: int, asked: float) -> Trial:
    loaded = load_encoder(encoder.config)
    startup_s = time.time() - asked
    catalog = open_catalog(settings.catalog)
    try:
        items = catalog.ledger.missing(_NO_COLLECTION, images)
        client = LocalEncoder(loaded, encoder.config.decode_threads)
        size = settings.bulk.batch_size or encoder.config.max_batch_size
        began = time.perf_counter()
        done = asyncio.run(_encode(client, catalog, items, size, settings.bulk.batches_in_flight))
        took_s = time.perf_counter() - began
    finally:
        catalog.close()
    return Trial(loaded.info, done, startup_s, done / took_s if done else None)


async def _encode(
    client: LocalEncoder, catalog: Catalog, items: Sequence[IndexItem], size: int, at_once: int
) -> int:
    room = asyncio.Semaphore(at_once)

    async def encode(batch: Sequence[IndexItem]) -> int:
        async with room:
            files = await asyncio.gather(*(asyncio.to_thread(_read, catalog, item) for item in batch))
            readable = [data for data in files if data is not None]
            await client.encode(readable)
            return len(readable)

    batches = (
        batch for some in batched(items, size) for batch in batched_by_bytes(some, lambda item: item.bytes)
    )
    return sum(await asyncio.gather(*(encode(batch) for batch in batches)))


def _read(catalog: Catalog, item: IndexItem) -> bytes | None:
    try:
        return catalog.blobs.get(item.sha256)
    except NotFound:
        return None


_MIN_IMAGES, _MAX_IMAGES = 32, 5_000
"""Fewer say nothing of the speed, and more tell nothing more."""


def plan(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Compare the candidate with the live version and estimate the build of what it lacks.

    Raises:
        InvalidInput: there is no such model, or the candidate cannot be.
        ConfigError: the candidate does not load.
    """
    assert isinstance(args, PlanArgs)
    catalog = context.catalog
    candidate = context.settings.encoder(args.model, args.candidate)
    images = catalog.products.counts()[1]
    wanted = min(max(_MIN_IMAGES, round(images * args.percent / 100)), _MAX_IMAGES)
    context.run.report(stage="trying the candidate", total=wanted)
    trial = try_out(context.settings, candidate, wanted)
    context.run.report(images_per_s=trial.images_per_s, done=trial.images)
    missing = catalog.ledger.counts(trial.info.collection).missing
    with open_store(context) as store:
        exists = store.has_collection(trial.info.collection)
        live = _live(store, catalog.ledger.versions(), args.model)
    missing = missing if exists else images
    return {
        "model": args.model,
        "live": live and live.collection,
        "live_dimension": live and live.dimension,
        "candidate": trial.info.collection,
        "fingerprint": trial.info.fingerprint,
        "dimension": trial.info.dimension,
        "collection_exists": exists,
        "images": images,
        "missing": missing,
        **_estimate(context, candidate, trial, missing),
    }


def _estimate(
    context: JobContext, candidate: EncoderSettings, trial: Trial, missing: int
) -> dict[str, float | int | None]:
    bulk = context.settings.bulk
    actors = bulk.max_actors
    gpus = candidate.resources(bulk)["num_gpus"] * actors
    seconds = None
    if trial.images_per_s is not None:
        seconds = trial.startup_s + missing / (trial.images_per_s * actors) if missing else 0.0
    return {
        "sampled": trial.images,
        "startup_s": trial.startup_s,
        "images_per_s_per_actor": trial.images_per_s,
        "actors": actors,
        "predicted_s": seconds,
        "gpu_hours": None if seconds is None else gpus * seconds / 3600,
        "vector_bytes": trial.info.dimension * 4 * missing,
    }


def _live(store: MilvusStore, versions: list[EncoderInfo], model: str) -> EncoderInfo | None:
    target = store.alias_target(model)
    return next((info for info in versions if info.collection == target), None)
