"""The memory of a gateway that is sent many large images at once: bounded by pixels in flight.

With VITRINE_FULL_MEMORY_BAR set, the images are as large, and as many, as a deployment must bear.
"""

import io
import os
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from models.images import ImageLimits, decoding
from tests.support.children import Child
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service

FULL = bool(os.environ.get("VITRINE_FULL_MEMORY_BAR"))
PUTS, IMAGES, SIDE = (8, 50, 8000) if FULL else (4, 8, 4000)
IN_FLIGHT = ImageLimits().max_pixels_in_flight if FULL else SIDE * SIDE
LIMIT_MB = 1536 if FULL else 400
"""Above idle. One small run has 32 images of 64 MB: without a bound 32 are decoded at once."""


def png(side: int, shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (shade, 80, 120)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def gateway(folder: Path) -> Iterator[tuple[int, str]]:
    command = [sys.executable, "-m", "tests.support.memory_driver", str(folder), str(IN_FLIGHT)]
    # As `vitrine` starts every process.
    environment = os.environ | {"MALLOC_ARENA_MAX": "2"}
    with Child("gateway", command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process.pid, f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def memory_mb(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
def test_many_large_images_at_once_take_bounded_memory(tmp_path: Path) -> None:
    files = [("images", (f"{n}.png", png(SIDE, n), "image/png")) for n in range(IMAGES)]
    with gateway(tmp_path) as (pid, url), httpx.Client(base_url=url, timeout=120) as client:
        warm = client.put("/v1/products/warm", files=[("images", ("w.png", png(8, 0), "image/png"))])
        assert warm.status_code == 201, warm.text
        idle = memory_mb(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")

        def put(number: int) -> httpx.Response:
            return client.put(f"/v1/products/p{number}", files=files)

        with ThreadPoolExecutor(PUTS) as pool:
            answers = list(pool.map(put, range(PUTS)))
        peak = memory_mb(pid, "VmHWM") - idle
    statuses = Counter(answer.status_code for answer in answers)
    print(f"{statuses}, {peak:.0f} MB above {idle:.0f} MB")
    assert all(answer.is_success or answer.status_code in (413, 503) for answer in answers), statuses
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 503)
    assert peak <= LIMIT_MB


@pytest.mark.anyio
async def test_a_write_that_finds_no_room_in_time_is_asked_to_come_again(tmp_path: Path) -> None:
    limits, body = ImageLimits(max_pixels_in_flight=100), {"images": [b64encode(png(8, 0)).decode()]}
    with local_service(tmp_path, {"fake": LocalEncoder()}, images=limits) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            with decoding(png(10, 0), limits):
                answer = await client.put(
                    "/v1/products/p", json=body, headers={"X-Request-Timeout-Seconds": "0.5"}
                )
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["type"] in ("overloaded", "deadline_exceeded")
            assert int(answer.headers["Retry-After"]) >= 1
            assert (await client.get("/v1/products/p")).status_code == 404
            assert (await client.put("/v1/products/p", json=body)).status_code == 201
