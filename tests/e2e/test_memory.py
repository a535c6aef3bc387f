"""Replicas do not grow: images of mixed sizes and kinds through every encoder.

For 10,000 images: `VITRINE_MEMORY_IMAGES=10000 .venv/bin/python -m pytest tests/e2e/test_memory.py`.
"""

import asyncio
import io
import itertools
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image

from benchmarks.load import multipart_requests, send_all
from demo.service import DemoService

MODELS = ("openclip", "dinov2", "blip2")
FIRST = 1_000
ALL = int(os.environ.get("VITRINE_MEMORY_IMAGES", "2500"))
CONNECTIONS = 16
GROWTH = 0.02
SIZES = ((32, 32), (64, 48), (100, 100), (224, 160), (320, 320), (480, 640), (64, 64), (1600, 1200))
KINDS = ("JPEG", "PNG", "JPEG", "WEBP", "JPEG")


def mixed_images() -> list[bytes]:
    """Files from 32 x 32 to 1600 x 1200 pixels; large ones are as rare as patience for this test."""
    files = []
    for number, kind in zip(range(60), itertools.cycle(KINDS), strict=False):
        size = SIZES[number % (len(SIZES) if number % 20 == 7 else len(SIZES) - 1)]
        coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(stream, kind)
        files.append(stream.getvalue())
    return files


def requests() -> Iterator[list[bytes]]:
    """Requests without end, to each model in turn."""
    streams = [multipart_requests(f"/v1/embed/{model}", mixed_images()) for model in MODELS]
    for together in zip(*streams, strict=True):
        yield from together


def resident(service: DemoService) -> dict[int, tuple[str, int]]:
    """The replicas that images pass through: what each process is, and its resident memory in bytes."""
    return {
        process.pid: (" ".join(process.cmdline()).strip(), process.memory_info().rss)
        for name in (*MODELS, "gateway")
        for process in service.processes(f"ServeReplica:{name}:")
        if process.status() != psutil.STATUS_ZOMBIE
    }


def test_replicas_do_not_grow_over_thousands_of_images(service: DemoService) -> None:
    port = urlsplit(service.base_url).port
    assert port is not None
    stream = requests()
    assert asyncio.run(send_all(port, itertools.islice(stream, FIRST), CONNECTIONS)) == FIRST
    before = resident(service)
    rest = ALL - FIRST
    assert asyncio.run(send_all(port, itertools.islice(stream, rest), CONNECTIONS)) == rest
    after = resident(service)
    stayed = before.keys() & after.keys()
    assert len(stayed) >= len(MODELS) + 1
    growths = {}
    for pid in stayed:
        (title, first), (_, last) = before[pid], after[pid]
        growths[title] = last / first - 1
        print(f"{title}: {first / 2**20:.0f} MiB, {growths[title]:+.2%}")
    assert max(growths.values()) <= GROWTH
