"""Bulk builds: their share of the encoder's own speed, their memory, and the accuracy of their prediction.

    python -m benchmarks.reindex [--speed 600] [--small 2000] [--large 20000]

Prints a table and, as its last line, one JSON object:

- `end_to_end_over_bare`: images/s of a build once it runs ÷ images/s of a loop that decodes and encodes the
  same files from memory, with the same encoder, threads and batches, before and after it; ViT-B-32 with
  random weights.
- `tiny_end_to_end_over_bare`: the same with the demo's tiny DINOv2, beside which all else costs most.
- `peak_memory_ratio`: most private memory of all processes of the large build ÷ that of the small one,
  without Milvus, whose index grows with its rows.
- `prediction_error`: |predicted - real| ÷ real time of the large build, predicted by a sample of 10 %.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.bare import write_checkpoint
from benchmarks.images import small_jpegs
from catalog.database import CatalogConfig
from catalog.opening import open_catalog
from core.errors import StoreUnavailable
from core.types import NewImage
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import load_encoder
from models.local_encoder import LocalEncoder

ROOT = Path(__file__).parents[1]
FILES = 100
IMAGES_A_PRODUCT = 10
SAMPLE_PERCENT = 10.0
BATCHES_IN_FLIGHT = 3
SIDE = 224


def main() -> None:
    """Run everything once, in a temporary folder."""
    options = _options()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="vitrine-bench-") as name, lite_owner(Path(name)):
        folder = Path(name)
        real, tiny = _real(folder), _tiny()
        config = _write_config(folder, [real, tiny])
        files = [NewImage(data, "image/jpeg", SIDE, SIDE) for data in small_jpegs(FILES)]
        _fill(folder, files, 0, options.speed)
        speed, bare = _build_and_bare(config, real, files, options.speed)
        _fill(folder, files, options.speed, options.small)
        small, tiny_bare = _build_and_bare(config, tiny, files, options.small)
        _fill(folder, files, options.small, options.large)
        # Another version of the model: its collection is empty.
        candidate = ["--model", tiny.name, "--pooling", "mean"]
        sample = _job(config, "sample", *candidate, "--percent", str(SAMPLE_PERCENT))
        large = _job(config, "build", *candidate)
    predicted = sample["predicted_remaining_s"]
    figures: dict[str, Any] = {
        "end_to_end_over_bare": speed["images_per_s"] / bare,
        "tiny_end_to_end_over_bare": small["images_per_s"] / tiny_bare,
        "peak_memory_ratio": large["peak_bytes"] / small["peak_bytes"],
        "prediction_error": abs(predicted - large["took_s"]) / large["took_s"],
        "bare_images_per_s": bare,
        "tiny_bare_images_per_s": tiny_bare,
        "speed": speed,
        "small": small,
        "sample": sample,
        "large": large,
        "load_before": load_before,
        "load_after": os.getloadavg(),
    }
    for name in (
        "end_to_end_over_bare",
        "tiny_end_to_end_over_bare",
        "peak_memory_ratio",
        "prediction_error",
    ):
        print(f"{name:28} {figures[name]:.3f}")
    print(json.dumps(figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--speed", type=int, default=600)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--large", type=int, default=20_000)
    return parser.parse_args()


def _real(folder: Path) -> EncoderConfig:
    checkpoint = write_checkpoint(folder / "vit")
    return EncoderConfig(
        name="openclip", family="openclip", checkpoint=str(checkpoint), threads=os.cpu_count()
    )


def _tiny() -> EncoderConfig:
    checkpoint = str(ROOT / "demo" / "weights" / "dinov2")
    return EncoderConfig(name="dinov2", family="dinov2", checkpoint=checkpoint, threads=os.cpu_count())


def _write_config(folder: Path, encoders: list[EncoderConfig]) -> Path:
    gateway = {
        "catalog": catalog_config(folder).model_dump(),
        "milvus": {"uri": milvus_uri(folder)},
        "jobs": {"bulk": {"batches_in_flight": BATCHES_IN_FLIGHT}},
    }
    applications: list[dict[str, Any]] = [
        {"import_path": "deployments.app:build_encoder", "args": encoder.model_dump(exclude_defaults=True)}
        for encoder in encoders
    ]
    applications.append({"import_path": "deployments.app:build_gateway", "args": gateway})
    config = folder / "serve_config.yaml"
    config.write_text(yaml.safe_dump({"applications": applications}))
    return config


def catalog_config(folder: Path) -> CatalogConfig:
    return CatalogConfig(database_url=f"sqlite:///{folder}/catalog.sqlite", blobs_url=str(folder / "blobs"))


def milvus_uri(folder: Path) -> str:
    return f"unix:{folder}/m.sock"


@contextmanager
def lite_owner(folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "milvus.lite", "--folder", str(folder / "milvus")]
    command += ["--address", milvus_uri(folder)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as owner:
        try:
            _wait_for(MilvusStore(MilvusConfig(uri=milvus_uri(folder))))
            yield
        finally:
            owner.terminate()


def _wait_for(store: MilvusStore) -> None:
    for _ in range(3):
        try:
            return store.ping()
        except StoreUnavailable:
            continue
    raise SystemExit("Milvus Lite does not start")


def _fill(folder: Path, files: list[NewImage], have: int, want: int) -> None:
    """Add products until there are `want` images; their files repeat, which an encoder cannot see."""
    catalog = open_catalog(catalog_config(folder))
    for first in range(have, want, IMAGES_A_PRODUCT):
        images = [files[(first + number) % FILES] for number in range(IMAGES_A_PRODUCT)]
        catalog.products.put(f"p{first}", "", "", {"number": first}, images)
    catalog.close()


def _build_and_bare(
    config: Path, encoder: EncoderConfig, files: list[NewImage], count: int
) -> tuple[dict[str, Any], float]:
    """Build a collection; its result, and the speed of the bare loop, as the mean of one before and one after.

    A machine that others share changes its speed within minutes.
    """
    before = _bare_images_per_s(encoder, files, count)
    result = _job(config, "build", "--model", encoder.name)
    return result, (before + _bare_images_per_s(encoder, files, count)) / 2


def _job(config: Path, *arguments: str) -> dict[str, Any]:
    """Run a job; its result, the seconds that it took and the most memory that it had."""
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "vitrine.cli.main",
        *arguments,
        "--local",
        "--config",
        str(config),
        "--json",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        peak = _Peak(psutil.Process(process.pid))
        peak.start()
        assert process.stdout is not None
        output = process.stdout.read().decode()
        peak.ended.set()
        peak.join()
    job: dict[str, Any] = json.loads(output[output.index("{\n") :])
    if job["state"] != "succeeded":
        raise RuntimeError(f"job {job['job_id']} {job['state']}: {job['error']}")
    return {**job["result"], "took_s": time.monotonic() - began, "peak_bytes": peak.bytes}


class _Peak(threading.Thread):
    """Watches the private memory of a process and all its descendants."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.ended = threading.Event()
        self._process = process

    def run(self) -> None:
        while not self.ended.wait(0.5):
            try:
                family = [self._process, *self._process.children(recursive=True)]
            except psutil.Error:
                return
            self.bytes = max(self.bytes, sum(_private_bytes(each) for each in family))


def _private_bytes(process: psutil.Process) -> int:
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - memory.shared)


def _bare_images_per_s(config: EncoderConfig, files: list[NewImage], count: int) -> float:
    """Decode and encode from memory, as many batches under way as in a build."""
    encoder = LocalEncoder(load_encoder(config), config.decode_threads)
    size = config.max_batch_size
    batches = [[files[(start + n) % FILES].data for n in range(size)] for start in range(0, count, size)]

    async def run() -> None:
        room = asyncio.Semaphore(BATCHES_IN_FLIGHT)

        async def encode(batch: list[bytes]) -> None:
            async with room:
                await encoder.encode(batch)

        await asyncio.gather(*(encode(batch) for batch in batches))

    # The first batch is no part of a build's speed either.
    asyncio.run(encoder.encode(batches[0]))
    began = time.perf_counter()
    asyncio.run(run())
    return len(batches) * size / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
