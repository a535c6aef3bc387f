"""Batches of long inputs, bounded by bytes and by count."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from core.types import EncoderInput

T = TypeVar("T")
MAX_ENCODE_BYTES = 16 * 2**20
"""Bytes of the inputs of one call to an encoder: what carries the call takes 64 MB at most."""
MAX_READ_BYTES = 64 * 2**20
"""Bytes of the image files that the threads of a job hold at once, where files are only read or copied."""
MAX_ENCODE_INPUTS = 256
"""Inputs of one call: several replicas share a larger batch, and each call keeps within its deadline."""


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut items, in order, into parts of `size`; the last one may have fewer."""
    return (items[start : start + size] for start in range(0, len(items), size))


def batched_by_bytes(items: Sequence[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut items, in order, into calls to an encoder; one that is too large by itself goes alone.

    Whoever reads files for such a call reads them batch by batch as well, so that no more are held at once.

    `size` gives the bytes of an item.
    """
    batch: list[T] = []
    total = 0
    for item in items:
        if batch and (total + size(item) > MAX_ENCODE_BYTES or len(batch) == MAX_ENCODE_INPUTS):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size(item)
    if batch:
        yield batch


def input_bytes(item: EncoderInput) -> int:
    """Bytes that an input takes in a call."""
    if isinstance(item, str):
        return len(item.encode())
    return len(item if isinstance(item, bytes) else item.data)
