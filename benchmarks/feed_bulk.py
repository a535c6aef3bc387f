"""What feeding a model costs in a bulk build: `python -m benchmarks.feed_bulk`.

The model only waits, as long as a GPU would compute: 5 ms a batch of 64. The stages are those of a build with
`decode_actors`, on Ray Data. Prints a table and, as its last line, one JSON object:

- `bulk_ms_an_image`: processor time of the model's process, batch 64, beyond the forward pass. The pass takes none
  here, so all of it counts, also what goes on meanwhile.
- `bulk_busy`: share of the time in which the model has work, where blocks of pixels lie in memory. The vectors are
  read and dropped: neither SQLite nor Milvus Lite takes 12,800 rows a second.
- `bulk_decode_speedup`: images/s of the decode stage with two processes ÷ with one. The stage reads a catalog in
  SQLite and files of 1000 x 1000 px in a folder, and asks a Milvus Lite for known vectors.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.data import DataContext, Dataset

from benchmarks.bare import median
from benchmarks.images import shop_jpeg
from benchmarks.reindex import catalog_config, lite_owner, milvus_uri
from catalog.opening import open_catalog
from core.config import BulkConfig
from core.errors import VitrineError
from core.index_rows import IndexRows
from core.types import EncoderInfo, IndexItem, NewImage, Vector
from jobs.build.blocks import ImageRow, decoded_table
from jobs.build.shard_indexer import ShardWork
from jobs.build.shards import cut
from jobs.build.stages import BLOCK_BYTES, CALLS_AT_ONCE, decoded, encoded, pool
from jobs.runner.cluster import start_ray
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels, unit_vectors
from models.images import Decoded, ImageLimits, Preprocess
from models.preprocessing import Preprocessing, read_jpeg

BATCH, BATCH_S = 64, 0.005
SIDE, DIMENSION = 224, 1024
ROUNDS = 3
_IMAGES_A_PRODUCT = 10
_SHARD_IMAGES = 64
_MOST_PASSES = 65_536
_INFO = EncoderInfo("waiting", "fake", "", "0123456789ab", DIMENSION, ("image",), "fp32", "cpu")
_PREPROCESSING = Preprocessing("shortest", (SIDE, SIDE), (SIDE, SIDE), "bicubic", (0, 0, 0), (1, 1, 1))


class WaitingEncoder(Encoder):
    """A model that only waits; a file gets the begin and end of each forward pass, in real and processor time."""

    runs_ahead = True

    def __init__(self, log: Path) -> None:
        super().__init__(_INFO, ImageLimits(), SIDE, read_jpeg)
        # In memory that is shared: a call of the system would count as time without work.
        self._log = np.memmap(log, np.float64, "w+", shape=(_MOST_PASSES, 4))
        self._passes = 0
        rows = np.random.default_rng(0).normal(size=(BATCH, DIMENSION))
        self._rows = rows.astype(np.float32)
        self._device = ThreadPoolExecutor(1, "device")
        self._pinned = np.empty((BATCH, 3, SIDE, SIDE), np.uint8)

    def start_images(self, images: Sequence[Pixels] | Pixels) -> Callable[[], list[Vector | VitrineError]]:
        """Have the device begin when it has done what it got before; what this returns waits for it."""
        # As to memory from which a GPU copies by itself, which torch uses again and again.
        batch = self._pinned[: len(images)]
        np.copyto(batch, images)
        started = self._device.submit(self.forward, batch)
        return lambda: unit_vectors(started.result())

    def preprocess(self, image: Decoded) -> NDArray[np.uint8]:
        """Resize and crop as CLIP does."""
        return _PREPROCESSING.apply_to(image)

    def preprocessor(self) -> Preprocess:
        """Return what `preprocess` does."""
        return _PREPROCESSING.apply_to

    def forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Wait as long as a GPU would compute."""
        began = time.perf_counter(), time.process_time()
        time.sleep(BATCH_S * len(batch) / BATCH)
        self._log[self._passes] = *began, time.perf_counter(), time.process_time()
        self._passes += 1
        return self._rows[: len(batch)]


def figures(blocks: int = 48, images: int = 600, rounds: int = ROUNDS) -> dict[str, float]:
    """Measure both stages, each where it has something to do; the median of the rounds."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="vitrine-bench-") as name, _cluster():
        folder = Path(name)
        if blocks:
            fed = [_feed(folder, blocks) for _ in range(rounds)]
            found |= {f"bulk_{key}": median([each[key] for each in fed]) for key in fed[0]}
        if images:
            with lite_owner(folder):
                _fill(folder, images)
                one, two = (
                    median([_decode(folder, images, actors) for _ in range(rounds)]) for actors in (1, 2)
                )
            found |= {"bulk_decode_speedup": two / one, "bulk_decode_images_per_s": one}
    return found


@contextmanager
def _cluster() -> Iterator[None]:
    """Start a Ray that lets each stage have the CPUs that it asks for, also where there are two."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    start_ray(num_cpus=4, include_dashboard=False, log_to_driver=False)
    context = DataContext.get_current()
    context.enable_progress_bars, context.target_max_block_size = False, BLOCK_BYTES
    try:
        yield
    finally:
        ray.shutdown()


def _work(folder: Path, log: Path) -> ShardWork:
    config = EncoderConfig(name=_INFO.name, family="fake")
    milvus = MilvusConfig(uri=milvus_uri(folder))
    return ShardWork(catalog_config(folder), milvus, config, _INFO, BATCH, 3, partial(_load, log))


def _load(log: Path, _config: EncoderConfig) -> WaitingEncoder:
    return WaitingEncoder(log)


def _feed(folder: Path, blocks: int) -> dict[str, float]:
    """Encode blocks as the decode stage makes them, of a shard; one lies in memory, and is read again and again."""
    log = folder / "forward"
    log.unlink(missing_ok=True)
    batches = BulkConfig().shard_images // BATCH
    block = ray.put(pa.concat_tables(_table(number) for number in range(batches)))
    vectors = encoded(
        ray.data.from_arrow_refs([block] * blocks),
        _work(folder, log),
        (1, 1),
        {"num_cpus": 1, "num_gpus": 0},
    )
    done = sum(row["images"] for row in _counts(vectors).iter_rows())
    passes = [each for each in np.fromfile(log).reshape(-1, 4).tolist() if each[0]]
    if done != BATCH * len(passes):
        raise RuntimeError(f"{done} images were answered in {len(passes)} batches")
    took_s = passes[-1][2] - passes[0][0]
    return {
        "ms_an_image": (passes[-1][3] - passes[0][1]) / (BATCH * len(passes)) * 1e3,
        "busy": sum(ended - began for began, _, ended, _ in passes) / took_s,
        "fed_images_per_s": BATCH * len(passes) / took_s,
    }


def _table(number: int) -> pa.Table:
    pixels = np.random.default_rng(number).integers(0, 256, (BATCH, 3, SIDE, SIDE), dtype=np.uint8)
    items = [IndexItem(f"{number:016x}{n:016x}", 1, f"p{n}", "ab" * 32, {"number": n}) for n in range(BATCH)]
    return decoded_table(time.time(), [ImageRow(*row) for row in zip(items, pixels, strict=True)])


def _counts(blocks: Dataset) -> Dataset:
    """Read blocks in a process of their own, as the next stage does; returns their sizes and the times."""
    return blocks.map_batches(
        _Counts, batch_size=None, batch_format="pyarrow", num_cpus=0.5, compute=pool(1, 1, CALLS_AT_ONCE)
    )


class _Counts:
    def __call__(self, block: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([{"images": len(block), "ended": time.time()}])


def _fill(folder: Path, images: int) -> None:
    """Store products of one file's content; what follows its end makes each another file."""
    catalog, data = open_catalog(catalog_config(folder)), shop_jpeg()
    for first in range(0, images, _IMAGES_A_PRODUCT):
        files = [
            NewImage(data + b" %d" % number, "image/jpeg", 1000, 1000)
            for number in range(first, first + _IMAGES_A_PRODUCT)
        ]
        catalog.products.put(f"p{first}", "", "", {"number": first}, files)
    IndexRows(MilvusStore(MilvusConfig(uri=milvus_uri(folder))), catalog.ledger).prepare(_INFO)
    catalog.close()


def _decode(folder: Path, images: int, actors: int) -> float:
    """Decode all images, and drop them; images per second from the first block of the last actor on."""
    work = _work(folder, folder / "none")
    shards = [asdict(shard) for shard in cut(images, _SHARD_IMAGES)]
    ranges = ray.data.from_items(shards, override_num_blocks=len(shards))
    decoder = work.load(work.encoder).decoder()
    blocks = _counts(decoded(ranges, work, decoder, pool(actors, actors, 1), cpus=1))
    rows = sorted(blocks.iter_rows(), key=lambda row: row["ended"])
    if sum(row["images"] for row in rows) != images:
        raise RuntimeError("the decode stage has lost images")
    warm, rest = rows[: 2 * actors], rows[2 * actors :]
    return float(sum(row["images"] for row in rest) / (rest[-1]["ended"] - warm[-1]["ended"]))


def main() -> None:
    """Measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--blocks", type=int, default=48, help="blocks of 512 images for the model; 0 for none"
    )
    parser.add_argument("--images", type=int, default=600, help="images to decode; 0 for none")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    load_before = os.getloadavg()
    found = figures(options.blocks, options.images, options.rounds)
    for name, value in found.items():
        print(f"{name:32} {value:10.3f}")
    print(json.dumps({**found, "load_before": load_before, "load_after": os.getloadavg()}))


if __name__ == "__main__":
    # By the module's name: workers of Ray import from there what they get.
    from benchmarks import feed_bulk

    feed_bulk.main()
