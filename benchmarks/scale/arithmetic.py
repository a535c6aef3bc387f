"""The arithmetic of docs/scale.md, in bytes, hours and dollars."""

from collections.abc import Sequence
from math import ceil

from benchmarks.scale.inputs import MODELS, Model, value

GB, GIB, TB = 1e9, 2**30, 1e12


def products(images: float) -> float:
    """Number of products that have so many images."""
    return images / value("images_a_product")


def file_bytes(images: float) -> float:
    """The image files."""
    return images * value("image_bytes")


def list_calls(images: float) -> float:
    """Calls that list the files of both sides for a backup, a thousand files each."""
    return 2 * images / 1000


def vector_bytes(images: float, models: Sequence[Model] = MODELS) -> float:
    """All vectors, as float32."""
    return sum(images * model.dimension * value("float_bytes") for model in models)


def scalar_bytes(images: float) -> float:
    """Size of a row beside its vector, in all collections."""
    return images * value("scalar_bytes") * len(MODELS)


def flat_bytes(images: float) -> float:
    """Memory of FLAT or IVF_FLAT: the vectors, and what stands beside them."""
    return vector_bytes(images) + scalar_bytes(images)


def hnsw_bytes(images: float) -> float:
    """Memory of HNSW: vectors and links."""
    return flat_bytes(images) + images * len(MODELS) * value("hnsw_m") * value("link_bytes")


def sq8_bytes(images: float) -> float:
    """Memory of IVF_SQ8."""
    return vector_bytes(images) / value("float_bytes") * value("sq8_bytes") + scalar_bytes(images)


def diskann_bytes(images: float) -> float:
    """Memory of DISKANN: codes and cache."""
    return vector_bytes(images) * (value("pq_share") + value("cache_share")) + scalar_bytes(images)


def diskann_disk(images: float) -> float:
    """Disk of DISKANN: vectors and graph."""
    return vector_bytes(images) + images * len(MODELS) * value("graph_degree") * 4


def nodes(memory: float) -> float:
    """Query nodes that hold so much."""
    return ceil(memory / (value("load_share") * value("node_bytes")))


def shards(images: float) -> float:
    """Shards of the largest collection."""
    largest = max(vector_bytes(images, [model]) for model in MODELS)
    return min(value("most_shards"), ceil(largest / value("shard_bytes")))


def segments(images: float) -> float:
    """Sealed segments of the largest collection, each of which a search visits."""
    return ceil(max(vector_bytes(images, [model]) for model in MODELS) / value("segment_bytes"))


def database_bytes(images: float) -> float:
    """Products, images and the ledger."""
    ledger = images * len(MODELS) * value("ledger_row")
    return products(images) * value("product_row") + images * value("image_row") + ledger


def gpu_hours(images: float, models: Sequence[Model] = MODELS) -> float:
    """One pass of every model over every image."""
    return sum(images / (model.images_per_s * value("kept_share")) / 3600 for model in models)


def gpu_cost(images: float) -> float:
    """Dollars of those hours."""
    return gpu_hours(images) * value("gpu_price")


def decode_hours(images: float) -> float:
    """Hours of one core that decode every image for every model."""
    return len(MODELS) * images * value("decode_s") / 3600


def put_hours(images: float) -> float:
    """Hours of one writer that puts every product."""
    return products(images) / value("put_rate") / 3600


def node_cost(memory: float) -> float:
    """Dollars a month for query nodes that load so much, bought in steps."""
    steps = ceil(memory / value("load_share") / value("step_bytes"))
    return steps * value("step_bytes") / GIB * value("memory_price") * value("month_h")


def disk_cost(size: float) -> float:
    """Dollars a month for so much disk."""
    return size / GB * value("disk_price")
