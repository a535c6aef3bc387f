"""Program that runs a gateway whose memory is measured: `python -m tests.support.memory_driver`.

python -m tests.support.memory_driver FOLDER MAX_PIXELS_IN_FLIGHT
"""

import asyncio
import sys
from pathlib import Path

import uvicorn

from core.concurrency import widen_thread_pool
from models.config import EncoderConfig
from models.encoder import load_encoder
from models.images import ImageLimits
from models.local_encoder import LocalEncoder
from tests.support.local_service import local_service


def main(folder: Path, max_pixels_in_flight: int) -> None:
    limits = ImageLimits(max_pixels_in_flight=max_pixels_in_flight)
    config = EncoderConfig(name="fake", family="fake", limits=limits)
    encoder = LocalEncoder(load_encoder(config), config.decode_threads)
    with local_service(folder, {"fake": encoder}, images=limits) as app:
        asyncio.run(_serve(uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))))


async def _serve(server: uvicorn.Server) -> None:
    widen_thread_pool()
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
