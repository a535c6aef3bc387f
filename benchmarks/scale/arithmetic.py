"""The arithmetic of docs/scale.md, in bytes, hours and dollars."""

from collections.abc import Sequence
from math import ceil

from benchmarks.scale.inputs import MODELS, Model, value

GB, GIB, TB = 1e9, 2**30, 1e12


def products(pictures: float) -> float:
    """How many products have so many pictures."""
    return pictures / value("pictures_a_product")


def file_bytes(pictures: float) -> float:
    """The picture files."""
    return pictures * value("picture_bytes")


def list_calls(pictures: float) -> float:
    """Calls that list the files of both sides for a backup, a thousand files each."""
    return 2 * pictures / 1000


def vector_bytes(pictures: float, models: Sequence[Model] = MODELS) -> float:
    """All vectors, as float32."""
    return sum(pictures * model.dimension * value("float_bytes") for model in models)


def scalar_bytes(pictures: float) -> float:
    """What a row holds beside its vector, in all collections."""
    return pictures * value("scalar_bytes") * len(MODELS)


def flat_bytes(pictures: float) -> float:
    """Memory of FLAT or IVF_FLAT: the vectors, and what stands beside them."""
    return vector_bytes(pictures) + scalar_bytes(pictures)


def hnsw_bytes(pictures: float) -> float:
    """Memory of HNSW: vectors and links."""
    return flat_bytes(pictures) + pictures * len(MODELS) * value("hnsw_m") * value("link_bytes")


def sq8_bytes(pictures: float) -> float:
    """Memory of IVF_SQ8."""
    return vector_bytes(pictures) / value("float_bytes") * value("sq8_bytes") + scalar_bytes(pictures)


def diskann_bytes(pictures: float) -> float:
    """Memory of DISKANN: codes and cache."""
    return vector_bytes(pictures) * (value("pq_share") + value("cache_share")) + scalar_bytes(pictures)


def diskann_disk(pictures: float) -> float:
    """Disk of DISKANN: vectors and graph."""
    return vector_bytes(pictures) + pictures * len(MODELS) * value("graph_degree") * 4


def nodes(memory: float) -> float:
    """Query nodes that hold so much."""
    return ceil(memory / (value("load_share") * value("node_bytes")))


def shards(pictures: float) -> float:
    """Shards of the largest collection."""
    largest = max(vector_bytes(pictures, [model]) for model in MODELS)
    return min(value("most_shards"), ceil(largest / value("shard_bytes")))


def segments(pictures: float) -> float:
    """Sealed segments of the largest collection, each of which a search visits."""
    return ceil(max(vector_bytes(pictures, [model]) for model in MODELS) / value("segment_bytes"))


def database_bytes(pictures: float) -> float:
    """Products, pictures and the ledger."""
    ledger = pictures * len(MODELS) * value("ledger_row")
    return products(pictures) * value("product_row") + pictures * value("picture_row") + ledger


def gpu_hours(pictures: float, models: Sequence[Model] = MODELS) -> float:
    """One pass of every model over every picture."""
    return sum(pictures / (model.images_per_s * value("kept_share")) / 3600 for model in models)


def gpu_cost(pictures: float) -> float:
    """Dollars of those hours."""
    return gpu_hours(pictures) * value("gpu_price")


def decode_hours(pictures: float) -> float:
    """Hours of one core that decode every picture for every model."""
    return len(MODELS) * pictures * value("decode_s") / 3600


def put_hours(pictures: float) -> float:
    """Hours of one writer that puts every product."""
    return products(pictures) / value("put_rate") / 3600


def node_cost(memory: float) -> float:
    """Dollars a month for query nodes that load so much, bought in steps."""
    steps = ceil(memory / value("load_share") / value("step_bytes"))
    return steps * value("step_bytes") / GIB * value("memory_price") * value("month_h")


def disk_cost(size: float) -> float:
    """Dollars a month for so much disk."""
    return size / GB * value("disk_price")
