"""Batches of long inputs, bounded by bytes and by count."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from core.types import EncoderInput

T = TypeVar("T")
MAX_ENCODE_BYTES = 16 * 2**20
"""Most bytes in one call to an encoder or to Milvus: both take at most 64 MB, and encoding inflates them."""
MAX_READ_BYTES = 64 * 2**20
"""Most bytes of image files that the threads of a job hold at once, where files are only read or copied."""
MAX_ENCODE_INPUTS = 256
"""Most inputs of one call, so that replicas share larger batches and each call meets its deadline."""


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split items, in order and as they come, into batches of `size`; the last batch may have fewer."""
    ahead = iter(items)
    while batch := list(islice(ahead, size)):
        yield batch


def batched_by_bytes(
    items: Sequence[T], size: Callable[[T], int], most: int = MAX_ENCODE_INPUTS
) -> Iterator[list[T]]:
    """Split items, in order, into batches of at most `most` for one call to an encoder or to Milvus.

    `size` returns the bytes of an item; a large one goes alone. Files should be read batch by batch, so that no more
    are held at once.
    """
    batch: list[T] = []
    total = 0
    for item in items:
        if batch and (total + size(item) > MAX_ENCODE_BYTES or len(batch) >= min(most, MAX_ENCODE_INPUTS)):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size(item)
    if batch:
        yield batch


def input_bytes(item: EncoderInput) -> int:
    """Return the bytes of an input in a call."""
    if isinstance(item, str):
        return len(item.encode())
    return len(item if isinstance(item, bytes) else item.data)
