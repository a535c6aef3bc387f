"""The three stages of a build with `decode_actors`, each a pool of actors of Ray Data.

Decoding takes CPUs of any node. Encoding takes the GPU, and little of a CPU beside it. Writing is apart because the
ledger and the store cost 0.23 ms of processor time an image (1024 dimensions), more than all else that the model's
process does. Rows are images, so memory is bounded by Ray Data: a stage pauses while its blocks wait.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data import ActorPoolStrategy, Dataset

from catalog.opening import open_catalog
from core.concurrency import batched, batched_by_bytes
from core.errors import Internal, InvalidInput, NotFound, Unavailable, VitrineError, expected
from core.index_rows import Failure, IndexRows
from core.indexing import IndexState
from core.telemetry import answering
from core.types import IndexItem, Vector, VectorRow
from jobs.build.blocks import (
    ImageRow,
    PixelGroup,
    decoded_table,
    encoded_rows,
    encoded_table,
    files_of,
    pixel_groups,
    without_files,
)
from jobs.build.file_import import StagedRows
from jobs.build.shard_indexer import READ_BATCHES, Decode, ShardWork
from jobs.build.shards import ShardDone
from milvus.store import MilvusStore
from models.encoder import Pixels
from models.images import is_for_gpu, not_prepared

CALLS_AT_ONCE = 2
"""Blocks that one actor has in hand: the next one begins while the last batches of the first are written."""
BLOCK_BYTES = 80 * 2**20
"""Bytes after which decoded images go to the model: a shard of 512 images of 224 px, in one block. At the end of each
block the model may have to wait for the next, whose call takes as long however few images it has."""
_WAITING = 6
"""Blocks that wait for one model beside those in hand: Ray's driver may need a third of a second for the next one."""
_CPUS = 0.5
"""CPUs of a process that writes, and of one that feeds a GPU."""
_WHOLE_BLOCKS = {"batch_size": None, "batch_format": "pyarrow"}
_READERS = 16
"""Files that one process reads at once: an object store takes as long for one as for many."""
_AHEAD = 2
"""Batches that are read and decoded while one is handed on."""
_PERMANENT = (InvalidInput, Internal, NotFound)
"""Errors that put an image into quarantine; after any other it has to wait."""

_Answer = tuple[IndexItem, ImageRow]
_Answers = dict[int, Vector | VitrineError]
"""Answers of a batch by their rows."""


class DecodeStage:
    """Reads and decodes the missing images of shards, and adds the vectors of those that the store knows."""

    def __init__(self, work: ShardWork, decoder: Decode, threads: int) -> None:
        self._work, self._decoder = work, decoder
        self._catalog = open_catalog(work.catalog)
        self._rows = IndexRows(MilvusStore(work.milvus), self._catalog.ledger)
        self._readers = ThreadPoolExecutor(_READERS, "read")
        self._decoders = ThreadPoolExecutor(threads, "decode")

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        """Yield what is missing in the shards `first`, `beyond`, batch by batch."""
        for shard in shards.to_pylist():
            began = time.time()
            try:
                for rows in _together(self._rows_of(shard["first"], shard["beyond"]), self._work.batch_size):
                    yield decoded_table(began, rows)
            except (Unavailable, NotFound) as error:
                # The rest of the shard is left to the next pass.
                yield decoded_table(began, [ImageRow(None, error=error)])

    def _rows_of(self, first: str, beyond: str) -> Iterator[ImageRow]:
        under_way: deque[list[Future[ImageRow]]] = deque()
        for items in self._missing(first, beyond):
            held = self._rows.copies(self._work.info, [item.image_id for item in items])
            yield from (ImageRow(item, vector=held[item.image_id]) for item in items if item.image_id in held)
            unknown = [item for item in items if item.image_id not in held]
            for batch in batched_by_bytes(unknown, lambda item: item.bytes, self._work.batch_size):
                read = [(item, self._readers.submit(self._read, item)) for item in batch]
                under_way.append([self._decoders.submit(self._decode, item, file) for item, file in read])
                if len(under_way) > _AHEAD:
                    yield from (image.result() for image in under_way.popleft())
        for images in under_way:
            yield from (image.result() for image in images)

    def _missing(self, first: str, beyond: str) -> Iterator[list[IndexItem]]:
        info, ledger = self._work.info, self._catalog.ledger
        limit = self._work.batch_size * READ_BATCHES
        self._rows.prepare(info)
        while items := ledger.missing(info.collection, limit, within=(first, beyond)):
            yield items
            # As in one stage: what could not be done now is left to the next pass.
            first = f"{items[-1].image_id}0"

    def _read(self, item: IndexItem) -> bytes | VitrineError:
        try:
            return self._catalog.blobs.get(item.sha256)
        except VitrineError as error:
            return error

    def _decode(self, item: IndexItem, read: Future[bytes | VitrineError]) -> ImageRow:
        data = read.result()
        if isinstance(data, VitrineError):
            return ImageRow(item, error=data)
        encoder = self._work.encoder
        if encoder.decode_on_gpu and is_for_gpu(data, encoder.limits):
            return ImageRow(item, file=data)
        with answering(self._work.request_id):
            try:
                return ImageRow(item, pixels=self._decoder(data))
            except Exception as error:
                return ImageRow(item, error=not_prepared(error, self._work.encoder.name))


def _together(rows: Iterable[ImageRow], size: int) -> Iterator[list[ImageRow]]:
    """Split rows into as many as the model takes, also where large files are read few at a time.

    With files that its GPU decodes there are fewer, for these may be a hundred times as large as pixels.
    """
    some: list[ImageRow] = []
    held = 0
    for row in rows:
        some.append(row)
        held += len(row.file or b"")
        if len(some) == size or held >= BLOCK_BYTES:
            yield some
            some, held = [], 0
    if some:
        yield some


class EncodeStage:
    """Holds the model. Several blocks may be in hand, so that the model never waits for the next one."""

    def __init__(self, work: ShardWork) -> None:
        """Load the model.

        Raises:
            ConfigError: it is another version than the build is for.
        """
        self._work = work
        # The thread that loads the model runs it too: graphs that it records belong to a thread.
        self._model = ThreadPoolExecutor(1, "model")
        self._encoder = self._model.submit(work.load_encoder).result()

    def _decoded(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Decode the files in a batch, on the GPU or else here, while the model runs another block."""
        if not (files := files_of(batch)):
            return batch
        gpu_jpegs = self._encoder.gpu_jpegs
        on_gpu = gpu_jpegs([*files.values()]) if gpu_jpegs else [None] * len(files)
        decoded: dict[int, Pixels | VitrineError] = {}
        with answering(self._work.request_id):
            for (row, file), pixels in zip(files.items(), on_gpu, strict=True):
                try:
                    decoded[row] = self._encoder.decode(file) if pixels is None else pixels
                except VitrineError as error:
                    decoded[row] = error
        return without_files(batch, decoded)

    def __call__(self, images: pa.Table) -> pa.Table:
        """Replace pixels by vectors.

        Raises:
            Internal: the model fails in a way that is no image's fault.
        """
        if not len(images):
            # Of a shard in which nothing was missing; Ray's block for it has no columns.
            return images
        batches = [self._decoded(batch) for batch in images.to_batches(max_chunksize=self._work.batch_size)]
        # Once a block: each change of threads lets the model wait.
        groups = [[*pixel_groups(batch)] for batch in batches]
        answers, read_last = self._model.submit(self._encode, groups).result()
        read_last()
        return pa.concat_tables(map(encoded_table, batches, answers))

    def _encode(self, batches: Sequence[Sequence[PixelGroup]]) -> tuple[list[_Answers], Callable[[], None]]:
        """Run all batches; the answers of the last are there when what comes second was called, in any thread.

        Each batch begins before the answers of the one before are read, so that a GPU need not wait.
        """
        answers: list[_Answers] = [{} for _ in batches]
        read = _nothing
        with answering(self._work.request_id):
            for into, groups in zip(answers, batches, strict=True):
                for rows, pixels in groups:
                    try:
                        started = self._encoder.start_images(pixels)
                    except Exception as error:
                        raise expected(error, "encoding images") from error
                    read()
                    read = partial(_read, into, rows, started)
        return answers, read


def _nothing() -> None:
    pass


def _read(into: _Answers, rows: Sequence[int], vectors: Callable[[], list[Vector | VitrineError]]) -> None:
    into |= zip(rows, vectors(), strict=True)


class WriteStage:
    """Writes vectors into the store and the ledger, or into files that Milvus imports."""

    def __init__(self, work: ShardWork) -> None:
        self._work = work
        self._catalog = open_catalog(work.catalog)
        self._store = MilvusStore(work.milvus)
        self._upserting = IndexRows(self._store, self._catalog.ledger)
        self._writers = ThreadPoolExecutor(work.batches_in_flight, "write")

    def __call__(self, encoded: pa.Table) -> pa.Table:
        """Write a block; returns its counts and times, in one row as those of a shard."""
        done = ShardDone(began=min(encoded["began"].to_pylist()) if len(encoded) else time.time())
        if self._work.files is None:
            self._write_all(self._upserting, encoded, done)
        else:
            with self._work.row_file() as file:
                self._write_all(StagedRows(self._store, self._catalog.ledger, file), encoded, done)
                self._work.hand_in(file, self._work.files, done)
        return pa.Table.from_pylist([done.row()])

    def _write_all(self, rows: IndexRows, encoded: pa.Table, done: ShardDone) -> None:
        answered = [row for batch in encoded.to_batches() for row in encoded_rows(batch)]
        images = [(row.item, row) for row in answered if row.item is not None]
        done.counts["pending"] += len(answered) - len(images)
        states: dict[str, IndexState] = {}
        for written in self._writers.map(partial(self._write, rows), batched(images, self._work.batch_size)):
            states |= written
        # All at once: while the first block was written, the next ones were decoded.
        done.add(states)

    def _write(self, rows: IndexRows, images: Sequence[_Answer]) -> dict[str, IndexState]:
        with answering(self._work.request_id):
            try:
                return self._settle(rows, images)
            except (Unavailable, NotFound):
                return {item.image_id: "pending" for item, _ in images}

    def _settle(self, rows: IndexRows, images: Sequence[_Answer]) -> dict[str, IndexState]:
        info, ledger = self._work.info, self._catalog.ledger
        states: dict[str, IndexState] = {item.image_id: "pending" for item, _ in images}
        vectors = [VectorRow(item, row.vector) for item, row in images if row.vector is not None]
        failures: list[Failure] = [
            (item, row.error) for item, row in images if isinstance(row.error, _PERMANENT)
        ]
        rows.prepare(info)
        ledger.open(info.collection, [row.item for row in vectors] + [item for item, _ in failures])
        failures += rows.upsert(info, vectors)
        ledger.fail(info.collection, failures)
        states |= {item.image_id: "failed" for item, _ in failures}
        written = [row.item for row in vectors if states[row.item.image_id] != "failed"]
        settled = rows.settle({info.collection: written})
        for item in written:
            match settled.get((info.collection, item.key)):
                case "settled":
                    states[item.image_id] = "indexed"
                case "obsolete":
                    # It is deleted, or missing in a newer revision.
                    del states[item.image_id]
        return states


def pool(least: int, most: int, calls: int, waiting: int | None = None) -> ActorPoolStrategy:
    """Return a pool of actors that each have so many calls in hand, and others waiting, by default as many."""
    return ActorPoolStrategy(
        min_size=least,
        max_size=most,
        max_concurrent_calls_per_actor=calls,
        max_tasks_in_flight_per_actor=calls + (calls if waiting is None else waiting),
        enable_true_multi_threading=True,
    )


def decoded(
    shards: Dataset, work: ShardWork, decoder: Decode, actors: ActorPoolStrategy, cpus: float
) -> Dataset:
    """Decode shards in actors that have so many CPUs and decode in as many threads, on any node."""
    return shards.map_batches(
        DecodeStage,
        fn_constructor_args=(work, decoder, max(1, round(cpus))),
        compute=actors,
        num_cpus=cpus,
        **_WHOLE_BLOCKS,
    )


def encoded(images: Dataset, work: ShardWork, actors: tuple[int, int], resources: dict[str, Any]) -> Dataset:
    """Encode images by the least to the most models; one with a GPU takes the CPUs that its process needs."""
    cpus = {"num_cpus": _CPUS} if resources["num_gpus"] else {}
    return images.map_batches(
        EncodeStage,
        fn_constructor_args=(work,),
        compute=pool(*actors, CALLS_AT_ONCE, _WAITING),
        **resources | cpus | _WHOLE_BLOCKS,
    )


def written(vectors: Dataset, work: ShardWork, actors: int) -> Dataset:
    """Write vectors in at most `actors` processes; returns a row of counts and times a block."""
    size = {"batch_size": work.files.file_images} if work.files else {}
    return vectors.map_batches(
        WriteStage,
        fn_constructor_args=(work,),
        compute=pool(1, actors, CALLS_AT_ONCE),
        num_cpus=_CPUS,
        **_WHOLE_BLOCKS | size,
    )
