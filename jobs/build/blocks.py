"""Arrow tables that carry images between the stages of a build: a row an image, with pixels, vector or error.

Arrays of a batch lie one behind the other in one buffer. So a stage in another process reads them from shared
memory as they are, without a copy.
"""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.errors import VitrineError
from core.types import IndexItem, Vector
from models.encoder import Pixels

PixelGroup = tuple[list[int], NDArray[np.uint8]]
"""Images of one size, (n, 3, height, width), and the numbers of their rows."""
_NOTHING = b""
_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image with its file, its pixels, its vector or its error; without `item`, images that have to wait.

    A file is one that the model's process decodes on its GPU.
    """

    item: IndexItem | None
    pixels: Pixels | None = None
    vector: Vector | None = None
    error: VitrineError | None = None
    file: bytes | None = None


def decoded_table(began: float, rows: Sequence[ImageRow]) -> pa.Table:
    """Write rows of the decode stage; `began` is the time at which their shard was taken up."""
    sizes = [(0, 0) if row.pixels is None else row.pixels.shape[1:] for row in rows]
    return pa.table(
        {
            "began": pa.array([began] * len(rows), pa.float64()),
            "item": _pickled([row.item for row in rows]),
            "error": _pickled([row.error for row in rows]),
            "vector": _packed([row.vector for row in rows]),
            "file": pa.array([row.file or _NOTHING for row in rows], pa.large_binary()),
            "height": pa.array([height for height, _ in sizes], pa.int32()),
            "width": pa.array([width for _, width in sizes], pa.int32()),
            "pixels": _packed([row.pixels for row in rows]),
        }
    )


def files_of(batch: pa.RecordBatch) -> dict[int, bytes]:
    """Return the files that are to be decoded, by the number of their row."""
    bounds, _ = _unpacked(batch["file"])
    return {row: batch["file"][row].as_py() for row in np.flatnonzero(np.diff(bounds)).tolist()}


def without_files(batch: pa.RecordBatch, decoded: Mapping[int, Pixels | VitrineError]) -> pa.RecordBatch:
    """Write the rows of a batch with pixels or errors in place of files, by the number of the row."""
    bounds, data = _unpacked(batch["pixels"])
    heights, widths, errors = (batch[name].to_pylist() for name in ("height", "width", "error"))
    pixels: list[Pixels | None] = [data[first:end] for first, end in pairwise(bounds)]
    for row, answer in decoded.items():
        if isinstance(answer, VitrineError):
            errors[row] = pickle.dumps(answer)
        else:
            pixels[row], (heights[row], widths[row]) = answer, answer.shape[1:]
    kept = {name: batch[name] for name in ("began", "item", "vector")}
    return pa.record_batch(
        {
            **kept,
            "error": pa.array(errors, pa.binary()),
            "file": pa.array([_NOTHING] * len(errors), pa.large_binary()),
            "height": pa.array(heights, pa.int32()),
            "width": pa.array(widths, pa.int32()),
            "pixels": _packed(pixels),
        }
    )


def pixel_groups(batch: pa.RecordBatch) -> Iterator[PixelGroup]:
    """Yield the images of each size in a batch, read-only; those that follow each other are not copied."""
    sizes = list(zip(batch["height"].to_pylist(), batch["width"].to_pylist(), strict=True))
    rows = sorted((row for row in range(batch.num_rows) if sizes[row][0]), key=sizes.__getitem__)
    bounds, data = _unpacked(batch["pixels"])
    for size, same in groupby(rows, key=sizes.__getitem__):
        numbers = list(same)
        first, end = bounds[numbers[0]], bounds[numbers[-1] + 1]
        shape = (len(numbers), _CHANNELS, *size)
        if end - first == np.prod(shape):
            yield numbers, data[first:end].reshape(shape)
        else:
            views = [data[bounds[row] : bounds[row + 1]].reshape(shape[1:]) for row in numbers]
            yield numbers, np.stack(views)


def encoded_table(batch: pa.RecordBatch, answers: dict[int, Vector | VitrineError]) -> pa.Table:
    """Write the rows of a batch with the answers of the model, by the number of the row."""
    held, errors = _vectors(batch["vector"]), batch["error"].to_pylist()
    for row, answer in answers.items():
        if isinstance(answer, VitrineError):
            errors[row] = pickle.dumps(answer)
        else:
            held[row] = answer
    return pa.table(
        {
            "began": batch["began"],
            "item": batch["item"],
            "error": pa.array(errors, pa.binary()),
            "vector": _packed(held),
        }
    )


def encoded_rows(batch: pa.RecordBatch) -> list[ImageRow]:
    """Read rows of the encode stage; each has a vector or an error."""
    # What is read was written by the other actors of the same job, as all that Ray brings from them.
    items, errors = (
        [pickle.loads(each) if each else None for each in batch[name].to_pylist()]
        for name in ("item", "error")
    )
    vectors = _vectors(batch["vector"])
    return [
        ImageRow(item, vector=vector, error=error)
        for item, vector, error in zip(items, vectors, errors, strict=True)
    ]


def _pickled(values: Sequence[object]) -> pa.Array:
    return pa.array([_NOTHING if value is None else pickle.dumps(value) for value in values], pa.binary())


def _packed(arrays: Sequence[NDArray[Any] | None]) -> pa.Array:
    """Lay arrays one behind the other; None becomes a value of no bytes."""
    bounds = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([0 if each is None else each.nbytes for each in arrays], out=bounds[1:])
    data = _NOTHING.join(np.ascontiguousarray(each).data for each in arrays if each is not None)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(arrays), [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    )


def _unpacked(array: pa.LargeBinaryArray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return where each value begins and the last one ends, and the bytes of all."""
    _, bounds, data = array.buffers()
    numbers = np.frombuffer(bounds, np.int64)[array.offset : array.offset + len(array) + 1]
    return numbers, np.frombuffer(_NOTHING if data is None else data, np.uint8)


def _vectors(array: pa.LargeBinaryArray) -> list[Vector | None]:
    bounds, data = _unpacked(array)
    values = (data[first:end] for first, end in pairwise(bounds))
    return [value.view(np.float32) if len(value) else None for value in values]
