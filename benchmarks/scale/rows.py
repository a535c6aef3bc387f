"""The rows of the tables of docs/scale.md: what, how it is reckoned in words, and the arithmetic itself."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil

from benchmarks.scale import arithmetic as a
from benchmarks.scale.inputs import MODELS, value


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table; `reckon` takes a number of images, `digits` is how many follow the point."""

    what: str
    how: str
    reckon: Callable[[float], float]
    digits: int = 0

    def cell(self, images: float) -> str:
        """Do the arithmetic for so many images."""
        return f"{self.reckon(images):,.{self.digits}f}"


STORED = (
    Row("products", "images / 3", a.products),
    Row("image files, TB", "images × file", lambda n: a.file_bytes(n) / a.TB, 1),
    Row(
        "database, GB",
        "products × row + images × (row + 3 × ledger row)",
        lambda n: a.database_bytes(n) / a.GB,
        1,
    ),
    Row("LIST calls of a backup", "2 × images / 1,000", a.list_calls),
)
SEARCHED = (
    Row("vectors, GB", "images × 4 × (1024 + 1024 + 256)", lambda n: a.vector_bytes(n) / a.GB),
    Row("rows beside them, GiB", "images × 3 × row", lambda n: a.scalar_bytes(n) / a.GIB),
    Row("memory with HNSW, GiB", "vectors + rows + links", lambda n: a.hnsw_bytes(n) / a.GIB),
    Row("memory with IVF_SQ8, GiB", "vectors / 4 + rows", lambda n: a.sq8_bytes(n) / a.GIB),
    Row("memory with DISKANN, GiB", "vectors × (0.125 + 0.10) + rows", lambda n: a.diskann_bytes(n) / a.GIB),
    Row("disk with DISKANN, GB", "vectors + graph", lambda n: a.diskann_disk(n) / a.GB),
    Row("query nodes, HNSW", "memory / (0.9 × 128 GiB)", lambda n: a.nodes(a.hnsw_bytes(n))),
    Row("query nodes, IVF_SQ8", "the same", lambda n: a.nodes(a.sq8_bytes(n))),
    Row("query nodes, DISKANN", "the same", lambda n: a.nodes(a.diskann_bytes(n))),
    Row("shards of a collection", "vectors of one model / 100 GB, at most 16", a.shards),
    Row("segments of a collection", "vectors of one model / 1 GiB", a.segments),
)
EMBEDDED = (
    *(
        Row(
            f"GPU hours, {model.name}",
            "images / (pace × 0.85) / 3600",
            partial(a.gpu_hours, models=[model]),
            1,
        )
        for model in MODELS
    ),
    Row("GPU hours, all", "the sum", a.gpu_hours, 1),
    Row("days on 8 GPUs", "GPU hours / 8 / 24", lambda n: a.gpu_hours(n) / 8 / 24, 2),
    Row("cost, $", "GPU hours × price", a.gpu_cost),
    Row("core hours of decoding, all", "3 × images × decoding / 3600", a.decode_hours),
    Row("units of a build's work", "images / 512", lambda n: ceil(n / value("shard_images"))),
    Row("hours of putting, one writer", "products / pace / 3600", a.put_hours, 1),
)
PAID = (
    Row("image files, $ a month", "GB × price", lambda n: a.file_bytes(n) / a.GB * value("object_price")),
    Row(
        "the listings of a backup, $",
        "calls × price / 1,000",
        lambda n: a.list_calls(n) * value("list_price") / 1000,
        2,
    ),
    Row("database's disk, $ a month", "GB × price", lambda n: a.disk_cost(a.database_bytes(n))),
    Row(
        "query nodes with HNSW, $ a month",
        "memory / 0.9, in steps of 16 GiB, × price × 730 h",
        lambda n: a.node_cost(a.hnsw_bytes(n)),
    ),
    Row("query nodes with IVF_SQ8, $ a month", "the same", lambda n: a.node_cost(a.sq8_bytes(n))),
    Row(
        "query nodes with DISKANN and their disks, $ a month",
        "the same + GB × price",
        lambda n: a.node_cost(a.diskann_bytes(n)) + a.disk_cost(a.diskann_disk(n)),
    ),
    Row("embedding a million images, $", "cost / images × 1,000,000", lambda n: a.gpu_cost(n) / n * 1e6, 2),
    Row(
        "searching a million images with IVF_SQ8, $ a month",
        "query nodes / images × 1,000,000",
        lambda n: a.node_cost(a.sq8_bytes(n)) / n * 1e6,
        2,
    ),
)
ROWS = {"stored": STORED, "searched": SEARCHED, "embedded": EMBEDDED, "paid": PAID}
