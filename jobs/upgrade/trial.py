"""A candidate tried out on some pictures: which version it is, and how fast one copy of it is."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import ray

from catalog.opening import Catalog, open_catalog
from core.errors import NotFound
from core.portions import batched_by_bytes, parts
from core.types import EncoderInfo, IndexItem
from jobs.cluster import own_errors
from jobs.settings import EncoderSettings, Settings
from models.local import LocalEncoder
from models.registry import load_encoder

_NO_COLLECTION = ""
"""Every picture is missing in it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was learned; `images_per_s` is None where the catalog holds no picture that can be read."""

    info: EncoderInfo
    pictures: int
    startup_s: float
    images_per_s: float | None


def try_out(settings: Settings, encoder: EncoderSettings, pictures: int) -> Trial:
    """Read, decode and encode some pictures of the catalog on the cluster, and drop the vectors.

    Milvus and the ledger are left alone, so a build is a little slower than this says where they are slow.
    """
    asked = time.time()
    task = ray.remote(max_retries=1, **encoder.resources(settings.bulk))(_try)
    with own_errors():
        trial: Trial = ray.get(task.remote(settings, encoder, pictures, asked))
    return trial


def _try(settings: Settings, encoder: EncoderSettings, pictures: int, asked: float) -> Trial:
    loaded = load_encoder(encoder.config)
    startup_s = time.time() - asked
    catalog = open_catalog(settings.catalog)
    try:
        items = catalog.ledger.missing(_NO_COLLECTION, pictures)
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
        batch for some in parts(items, size) for batch in batched_by_bytes(some, lambda item: item.bytes)
    )
    return sum(await asyncio.gather(*(encode(batch) for batch in batches)))


def _read(catalog: Catalog, item: IndexItem) -> bytes | None:
    try:
        return catalog.blobs.get(item.sha256)
    except NotFound:
        return None
