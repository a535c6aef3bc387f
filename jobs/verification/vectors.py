"""Whether vectors are what their pictures are encoded to, by encoding some of them anew."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from catalog.opening import Catalog
from core.errors import NotFound, VitrineError
from core.portions import batched_by_bytes, parts
from core.ports import EncoderClient, VectorStore
from core.types import EncoderInfo, Vector
from core.vectors import is_unit

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
    """Encode pictures and compare with what Milvus holds.

    A picture that changes or goes meanwhile, that cannot be encoded, or whose file is missing or damaged,
    says nothing.
    """
    compared = Compared()
    for batch in (
        some for part in parts(files, _BATCH) for some in batched_by_bytes(part, lambda file: file[2])
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
