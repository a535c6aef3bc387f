"""Job `plan`: measure a candidate on some images, and estimate its build; it writes nothing."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from catalog.opening import Catalog, open_catalog
from core.concurrency import batched_by_bytes
from core.jobs import PlanArgs, version_facts
from core.types import EncoderInfo, IndexItem
from jobs.runner.cluster import run_task
from jobs.runner.context import JobContext, open_store
from jobs.runner.settings import EncoderSettings, Settings
from jobs.upgrade.rollout import live_version
from models.encoder import load_encoder
from models.local_encoder import LocalEncoder

_NO_COLLECTION = ""
"""No image is in it, so all are missing."""
_MIN_IMAGES, _MAX_IMAGES = 32, 5_000
"""Fewer images measure nothing, and more add nothing."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Speed of a candidate; `images_per_s` is None where the catalog holds no readable image."""

    info: EncoderInfo
    images: int
    startup_s: float
    images_per_s: float | None


def measure(settings: Settings, encoder: EncoderSettings, images: int) -> Measurement:
    """Read, decode and encode some images of the catalog on the cluster, and drop the vectors.

    Nothing is written to Milvus or the ledger. Where they are slow, a build is slower than measured here.
    """
    resources = encoder.resources(settings.bulk)
    measured: Measurement = run_task(resources, _measure, settings, encoder, images, time.time())
    return measured


def _measure(settings: Settings, encoder: EncoderSettings, images: int, asked: float) -> Measurement:
    loaded = load_encoder(encoder.config.uncompiled)
    startup_s = time.time() - asked
    catalog = open_catalog(settings.catalog)
    try:
        items = catalog.ledger.missing(_NO_COLLECTION, images)
        client = LocalEncoder(loaded, encoder.decode_threads(settings.bulk))
        size = settings.bulk.batch_size or encoder.config.max_batch_size
        began = time.perf_counter()
        done = asyncio.run(_encode(client, catalog, items, size, settings.bulk.batches_in_flight))
        took_s = time.perf_counter() - began
    finally:
        catalog.close()
    info = replace(loaded.info, index_schema=settings.milvus.index_schema)
    return Measurement(info, done, startup_s, done / took_s if done else None)


async def _encode(
    client: LocalEncoder, catalog: Catalog, items: Sequence[IndexItem], size: int, at_once: int
) -> int:
    room = asyncio.Semaphore(at_once)

    async def encode(batch: Sequence[IndexItem]) -> int:
        async with room:
            files = await asyncio.gather(
                *(asyncio.to_thread(catalog.blobs.find, item.sha256) for item in batch)
            )
            readable = [data for data in files if data is not None]
            await client.encode(readable)
            return len(readable)

    batches = batched_by_bytes(items, lambda item: item.bytes, size)
    return sum(await asyncio.gather(*(encode(batch) for batch in batches)))


def plan(context: JobContext, args: PlanArgs) -> dict[str, Any]:
    """Compare the candidate with the live version and estimate the build of what it lacks.

    Raises:
        InvalidInput: there is no such model, or the candidate cannot be.
        ConfigError: the candidate does not load.
    """
    catalog = context.catalog
    candidate = context.settings.encoder(args.model, args.changes)
    images = catalog.products.counts()[1]
    wanted = min(max(_MIN_IMAGES, round(images * args.percent / 100)), _MAX_IMAGES)
    context.run.report(stage="measuring the candidate", total=wanted)
    measured = measure(context.settings, candidate, wanted)
    context.run.report(images_per_s=measured.images_per_s, done=measured.images)
    with open_store(context) as store:
        exists = store.has_collection(measured.info.collection)
        baseline = live_version(store, catalog.ledger.versions(), args.model)
    missing = catalog.ledger.counts(measured.info.collection).missing if exists else images
    return {
        **version_facts(measured.info),
        "baseline": baseline and baseline.collection,
        "baseline_dimension": baseline and baseline.dimension,
        "collection_exists": exists,
        "images": images,
        "missing": missing,
        **_estimate(context, candidate, measured, missing),
    }


def _estimate(
    context: JobContext, candidate: EncoderSettings, measured: Measurement, missing: int
) -> dict[str, float | int | None]:
    bulk = context.settings.bulk
    actors = bulk.max_actors
    gpus = candidate.resources(bulk)["num_gpus"] * actors
    seconds = None
    if measured.images_per_s is not None:
        seconds = measured.startup_s + missing / (measured.images_per_s * actors) if missing else 0.0
    return {
        "sampled": measured.images,
        "startup_s": measured.startup_s,
        "images_per_s_per_actor": measured.images_per_s,
        "actors": actors,
        "predicted_s": seconds,
        "gpu_hours": None if seconds is None else gpus * seconds / 3600,
        "vector_bytes": measured.info.dimension * 4 * missing,
    }
