"""Batch sizes and waits of a replica, measured at saturation and with a single caller."""

import asyncio
import os
from pathlib import Path

from rich.table import Table

from benchmarks.bare import write_checkpoint
from benchmarks.images import small_jpegs
from benchmarks.load import multipart_requests, throughput
from benchmarks.served import CONNECTIONS, encoder_settings
from benchmarks.service import MODEL, serving

BATCH_SIZES = (8, 16, 32, 64)
WAITS_S = (0.0, 0.005, 0.02)
SECONDS = 6.0


def compare_batching(scratch: Path) -> Table:
    """Restart the service for each combination; measures images/s with many callers, ms an image with one."""
    checkpoint = write_checkpoint(scratch / "checkpoint")
    images = small_jpegs(64)
    table = Table(
        "max_batch_size", "batch_wait_timeout_s", f"images/s, {CONNECTIONS} callers", "ms, 1 caller"
    )
    for size in BATCH_SIZES:
        for wait_s in WAITS_S:
            settings = encoder_settings(
                checkpoint,
                precision="bf16",
                threads=os.cpu_count(),
                max_batch_size=size,
                batch_wait_timeout_s=wait_s,
            )
            with serving(scratch / f"{size}-{wait_s}", settings, images[0]) as (_, port):
                requests = multipart_requests(f"/v1/embed/{MODEL}", images)
                many = asyncio.run(throughput(port, requests, CONNECTIONS, SECONDS))
                alone = asyncio.run(throughput(port, requests, 1, SECONDS / 2))
            table.add_row(str(size), f"{wait_s:g}", f"{many:.1f}", f"{1e3 / alone:.1f}")
    return table
