"""Embeddings of inputs that were seen before, within a bound of bytes that is taken at once."""

import hashlib
from collections import OrderedDict

import numpy as np

from core.types import Cropped, EncoderInput, Vector


def content_key(fingerprint: str, item: EncoderInput) -> bytes:
    """Hash a model version and an input to 32 bytes: equal only for the same version and content."""
    kind, content = _content(item)
    digest = hashlib.sha256(f"{fingerprint} {kind} ".encode())
    digest.update(content)
    return digest.digest()


def _content(item: EncoderInput) -> tuple[str, bytes]:
    if isinstance(item, str):
        return "text", item.encode()
    if isinstance(item, Cropped):
        return f"image {item.box!r}", item.data
    return "image", item


class EmbeddingCache:
    """The most recently used vectors of one model version. Not for several threads at a time.

    Its memory is one block that is written when it is made, so that a replica which fills its cache
    does not grow; keys come on top, some 200 bytes for each vector.
    """

    def __init__(self, max_bytes: int, dimension: int) -> None:
        """Make room for as many float32 vectors as `max_bytes` hold; with room for none it stays empty."""
        slots = max_bytes // (dimension * np.dtype(np.float32).itemsize)
        self._rows = np.full((slots, dimension), np.nan, np.float32)
        self._slots: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: bytes) -> Vector | None:
        """Return a copy of the float32 vector of shape (dimension,), or None when it is not held."""
        slot = self._slots.get(key)
        if slot is None:
            return None
        self._slots.move_to_end(key)
        held: Vector = self._rows[slot].copy()
        return held

    def put(self, key: bytes, vector: Vector) -> None:
        """Keep a vector; the one that was not asked for the longest makes room."""
        if not len(self._rows):
            return
        slot = self._slots.pop(key, None)
        if slot is None:
            full = len(self._slots) == len(self._rows)
            slot = self._slots.popitem(last=False)[1] if full else len(self._slots)
        self._slots[key] = slot
        self._rows[slot] = vector
