"""Whether vectors are what their pictures are encoded to, by encoding some of them anew."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from catalog.opening import Catalog
from core.errors import NotFound, VitrineError
from core.ports import EncoderClient, VectorStore
from core.types import EncoderInfo, Vector

MIN_COSINE = {"fp32": 0.9999}
"""Cosine of a vector with itself made anew: batches and processors differ in the last digits only."""
MIN_COSINE_ROUNDED = 0.99
"""The same where weights are rounded to less than fp32."""
_UNIT_TOLERANCE = 1e-3
_BATCH = 32


@dataclass
class Compared:
    """How many vectors were compared, which differ, and which pictures' files are gone or damaged."""

    vectors: int = 0
    changed: list[str] = field(default_factory=list)
    missing_files: list[str] = field(default_factory=list)
    damaged_files: list[str] = field(default_factory=list)

    def __add__(self, other: "Compared") -> "Compared":
        return Compared(
            self.vectors + other.vectors,
            self.changed + other.changed,
            self.missing_files + other.missing_files,
            self.damaged_files + other.damaged_files,
        )


async def compare_vectors(
    encoder: EncoderClient,
    info: EncoderInfo,
    catalog: Catalog,
    store: VectorStore,
    files: Sequence[tuple[str, str]],
) -> Compared:
    """Encode pictures, each a row key with the sha256 of its file, and compare with what Milvus holds.

    A picture that changes or goes meanwhile, and one that cannot be encoded, says nothing.
    """
    compared = Compared()
    for start in range(0, len(files), _BATCH):
        compared += await _compare(encoder, info, catalog, store, files[start : start + _BATCH])
    return compared


async def _compare(
    encoder: EncoderClient,
    info: EncoderInfo,
    catalog: Catalog,
    store: VectorStore,
    files: Sequence[tuple[str, str]],
) -> Compared:
    compared = Compared()
    contents = await asyncio.gather(*(asyncio.to_thread(_read, catalog, sha256) for _, sha256 in files))
    sound: dict[str, bytes] = {}
    for (key, sha256), data in zip(files, contents, strict=True):
        if data is None:
            compared.missing_files.append(key)
        elif hashlib.sha256(data).hexdigest() != sha256:
            compared.damaged_files.append(key)
        else:
            sound[key] = data
    stored = await asyncio.to_thread(store.fetch, info.collection, list(sound))
    fresh = await encoder.encode([data for key, data in sound.items() if key in stored])
    keys = [key for key in sound if key in stored]
    for key, vector in zip(keys, fresh.vectors, strict=True):
        if not isinstance(vector, VitrineError):
            compared.vectors += 1
            if not is_same(stored[key], vector, info.precision):
                compared.changed.append(key)
    return compared


def is_same(stored: Vector, fresh: Vector, precision: str) -> bool:
    """Tell whether a stored float32 vector is the unit vector (dimension,) that was made anew."""
    kept = stored.astype(np.float64)
    length = float(np.linalg.norm(kept))
    if stored.shape != fresh.shape or not abs(length - 1) <= _UNIT_TOLERANCE:
        return False
    least = MIN_COSINE.get(precision, MIN_COSINE_ROUNDED)
    return float(kept @ fresh.astype(np.float64)) / length >= least


def _read(catalog: Catalog, sha256: str) -> bytes | None:
    try:
        return catalog.blobs.get(sha256)
    except NotFound:
        return None
