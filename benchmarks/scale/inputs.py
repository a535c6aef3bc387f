"""Numbers that docs/scale.md reckons with, each with its unit and where it comes from."""

from dataclasses import dataclass

_TIMM = (
    "[timm's table for an RTX 4090](https://github.com/huggingface/pytorch-image-models/blob/main/results/"
    "benchmark-infer-amp-nchw-pt291-cu128-4090.csv), AMP, not compiled, 224 px"
)
_LIMITS = "[Milvus, limits](https://milvus.io/docs/limitations.md)"
_DISK = "[Milvus, DISKANN's defaults](https://milvus.io/docs/diskann.md)"
_SIZE = "measured on PostgreSQL 18: `python -m benchmarks.catalog_size`"


@dataclass(frozen=True, slots=True)
class Input:
    """A number that the page rests on."""

    meaning: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder of serve_config.yaml, as far as its size and pace count."""

    name: str
    dimension: int
    images_per_s: float
    source: str


MODELS = (
    Model("OpenCLIP ViT-H-14", 1024, 401.90, f"`vit_huge_patch14_clip_224` in {_TIMM}"),
    Model("DINOv2 large", 1024, 785.27, f"`vit_large_patch14_clip_224`, the same tower, in {_TIMM}"),
    Model("BLIP-2 ViT-g", 256, 240.83, f"`eva_giant_patch14_224`, without the Q-Former, in {_TIMM}"),
)

INPUTS: dict[str, Input] = {
    "images_a_product": Input("images a product has", 3, "", "chosen; the demo's have 2 to 4"),
    "image_bytes": Input("an image file", 200e3, "bytes", "chosen: 1000 x 1000 px, JPEG; weigh yours"),
    "product_row": Input("a product in the database, its words included", 877, "bytes", _SIZE),
    "image_row": Input("an image in the database", 390, "bytes", _SIZE),
    "ledger_row": Input("a row of the ledger", 553, "bytes", _SIZE),
    "put_rate": Input(
        "products that one writer puts", 82.4, "1/s", f"{_SIZE}, on a disk that other work shared"
    ),
    "scalar_bytes": Input(
        "a row of a collection without its vector, with four attributes", 470, "bytes", f"{_SIZE}, as JSON"
    ),
    "float_bytes": Input("a component of a vector", 4, "bytes", "float32"),
    "hnsw_m": Input("HNSW's M", 16, "", "`milvus/collections.py`, our default"),
    "link_bytes": Input(
        "HNSW's links, for each M",
        10,
        "bytes",
        "[hnswlib, 8 to 10](https://github.com/nmslib/hnswlib/blob/master/ALGO_PARAMS.md)",
    ),
    "sq8_bytes": Input("a component of a vector in IVF_SQ8", 1, "bytes", "8 bit"),
    "pq_share": Input("DISKANN: share of the vectors that is kept in memory as codes", 0.125, "", _DISK),
    "cache_share": Input("DISKANN: share that is cached", 0.10, "", _DISK),
    "graph_degree": Input("DISKANN: edges of 4 bytes a vector", 56, "", _DISK),
    "load_share": Input("share of a query node's memory that may be loaded", 0.9, "", _LIMITS),
    "most_shards": Input("most shards of a collection", 16, "", _LIMITS),
    "shard_bytes": Input(
        "vectors for one shard more",
        100e9,
        "bytes",
        "[Milvus, shard number](https://milvus.io/docs/create-collection.md)",
    ),
    "segment_bytes": Input("a sealed segment", 1024 * 2**20, "bytes", "Milvus, `dataCoord.segment.maxSize`"),
    "node_bytes": Input("memory of a query node", 128 * 2**30, "bytes", "chosen"),
    "step_bytes": Input("steps in which memory is bought", 16 * 2**30, "bytes", "chosen"),
    "kept_share": Input(
        "share of the model's own pace that a build keeps", 0.85, "", "the bar of benchmarks/README.md"
    ),
    "decode_s": Input(
        "decoding an image of 1000 x 1000 px, one core",
        0.0072,
        "s",
        "measured: `python -m benchmarks.sizing`",
    ),
    "shard_images": Input("images in one unit of a build's work", 512, "", "`jobs.bulk.shard_images`"),
    "gpu_price": Input(
        "an RTX 4090",
        0.00021 * 3600,
        "$/h",
        "[RunPod, active worker](https://docs.runpod.io/serverless/pricing), 0.00021 $/s",
    ),
    "memory_price": Input(
        "memory with its cores",
        0.0816 / 8,
        "$/GiB·h",
        "[AWS m7g.large](https://aws.amazon.com/ec2/pricing/on-demand/), us-east-1, 8 GiB for 0.0816 $/h",
    ),
    "object_price": Input(
        "object store", 0.023, "$/GB·month", "[S3 Standard](https://aws.amazon.com/s3/pricing/), first 50 TB"
    ),
    "disk_price": Input(
        "local or network SSD",
        0.08,
        "$/GB·month",
        "[EBS gp3](https://aws.amazon.com/ebs/pricing/), us-east-1",
    ),
    "list_price": Input(
        "1,000 LIST requests", 0.005, "$", "[S3](https://aws.amazon.com/s3/pricing/), us-east-1"
    ),
    "month_h": Input("a month", 730, "h", "8,760 h / 12"),
}


def value(name: str) -> float:
    """Read an input."""
    return INPUTS[name].value
