"""Processor time around a model that costs next to nothing: `python -m benchmarks.overhead`.

Images go through the whole service, whose processes are counted apart. Then they go through an encoder's replica
in a process without Serve, where the stages of an image are counted apart.
"""

import argparse
import asyncio
import base64
import itertools
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import wraps
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.bare import median, write_checkpoint
from benchmarks.images import product_jpegs
from benchmarks.load import send_all
from benchmarks.served import encoder_settings
from benchmarks.service import MODEL, serving
from benchmarks.writes import Meter
from core.errors import VitrineError
from core.types import Vector
from deployments.replicas import embedding_cache
from deployments.replicas.encoder import EncoderReplica
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels
from models.torch_encoder import TorchEncoder

SMALL = {
    "vision_cfg": {"layers": 1, "width": 64},
    "text_cfg": {"layers": 1, "width": 64, "heads": 1, "vocab_size": 49408},
}
"""One layer of 64 numbers a token."""
LOADS = ((16, 1), (4, 16), (1, 1))
"""Callers, and images of each request."""
GROUPS = {"gateway": ":gateway:", "encoder": ":Encoder", "HAProxy": "haproxy"}
WARM_UP = 64
Key = tuple[int, int]


def main() -> None:
    """Measure the service, then a replica alone, and print where the time goes."""
    options = _options()
    # The service is a child, which only an orderly end takes along.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit("ended by SIGTERM"))
    loads = [_load(text) for text in options.loads] or list(LOADS)
    with tempfile.TemporaryDirectory(prefix="vitrine-") as folder:
        checkpoint = write_checkpoint(Path(folder) / "checkpoint", **SMALL)
        settings = encoder_settings(checkpoint, threads=1)
        processes = {} if options.only == "replica" else _served(Path(folder), settings, loads, options)
        alone = {} if options.only == "service" else _alone(settings, loads, options.images)
    _print("process", processes)
    _print("stage of the encoder, without Serve", alone)
    print(json.dumps({"processes": _named(processes), "stages": _named(alone)}))


def _served(
    folder: Path, settings: dict[str, Any], loads: Sequence[Key], options: argparse.Namespace
) -> dict[Key, dict[str, float]]:
    """Return ms of processor time an image by process, and images a second; the median of the rounds."""
    found: dict[Key, list[dict[str, float]]] = {load: [] for load in loads}
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as client,
        serving(folder / "home", settings, product_jpegs(1)[0]) as (service, port),
    ):
        meter = Meter(service, GROUPS)
        for callers, size in loads:
            client.submit(send, port, callers, size, WARM_UP).result()
        for _ in range(options.rounds):
            for callers, size in loads:
                with meter.reading() as spent:
                    took_s, client_s = client.submit(send, port, callers, size, options.images).result()
                ms = {group: seconds / options.images * 1e3 for group, seconds in spent.items()}
                found[callers, size].append(
                    ms
                    | {"all": sum(ms.values()), "client": client_s / options.images * 1e3}
                    | {"images/s": options.images / took_s}
                )
        time.sleep(1)
        with meter.reading() as rest:
            time.sleep(options.rest)
    print("at rest, thousandths of a core:", {k: round(v / options.rest * 1e3, 1) for k, v in rest.items()})
    return {
        load: {key: median([each[key] for each in rounds]) for key in rounds[0]}
        for load, rounds in found.items()
    }


def send(port: int, callers: int, size: int, images: int) -> tuple[float, float]:
    """Send so many images, no two alike, in a process of its own; returns seconds, and those of its processor.

    Raises:
        RuntimeError: an answer was not 200, or one is missing.
    """
    requests = list(itertools.islice(embedding_requests(product_jpegs(64), size), images // size))
    started, used = time.perf_counter(), time.process_time()
    answers = asyncio.run(send_all(port, iter(requests), callers))
    took = time.perf_counter() - started, time.process_time() - used
    if answers != images // size:
        raise RuntimeError(f"{answers} answers in place of {images // size}")
    return took


def embedding_requests(images: Sequence[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield requests of `POST /v1/embeddings` without end, each of `size` images as data URIs.

    A mark after the end of the JPEG makes each file different from all that were ever sent.
    """
    # Padded to a multiple of three bytes, so that a mark of twelve can be encoded by itself.
    padded = [base64.b64encode(image + bytes(-len(image) % 3)) for image in images]
    opening, between, closing = b'"data:image/jpeg;base64,', b",", b"]}"
    for number in itertools.count():
        parts = [json.dumps({"model": MODEL, "modality": "image"}).encode()[:-1], b', "input": [']
        for place in range(size):
            mark = base64.b64encode(b"%012d" % (time.time_ns() % 10**12))
            image = padded[(number * size + place) % len(images)]
            parts += [between, opening, image, mark, b'"'] if place else [opening, image, mark, b'"']
        parts.append(closing)
        length = sum(map(len, parts))
        head = (
            "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\n\r\n"
        )
        yield [head.encode(), *parts]


def _alone(settings: Mapping[str, Any], loads: Sequence[Key], images: int) -> dict[Key, dict[str, float]]:
    """Return ms of processor time an image by stage, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(stages, dict(settings), list(loads), images).result()


def stages(settings: dict[str, Any], loads: Sequence[Key], images: int) -> dict[Key, dict[str, float]]:
    """Run a replica in this process, and count the processor time of its threads by stage."""
    spent: dict[str, float] = {}
    batches: list[int] = []
    lock = threading.Lock()
    encode_images = Encoder.encode_images

    def sized(model: Encoder, images: Sequence[Pixels]) -> list[Vector | VitrineError]:
        batches.append(len(images))
        return encode_images(model, images)

    def counted(stage: str, inner: str | None, function: Callable[..., Any]) -> Callable[..., Any]:
        """Count a function's time, less that of the stage inside it."""

        @wraps(function)
        def wrapper(*args: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*args, **options)
            finally:
                took = time.thread_time() - began
                with lock:
                    spent[stage] = spent.get(stage, 0.0) + took
                    if inner:
                        spent[inner] = spent.get(inner, 0.0) - took

        return wrapper

    found = {}
    with ExitStack() as patches:
        patches.enter_context(patch.object(Encoder, "encode_images", sized))
        for target, name, stage, inside in (
            (embedding_cache, "content_key", "cache key", None),
            (Encoder, "decode", "decode", None),
            (TorchEncoder, "preprocess", "resize", "decode"),
            (Encoder, "encode_images", "model", None),
        ):
            function = getattr(target, name)
            patches.enter_context(patch.object(target, name, counted(stage, inside, function)))
        replica = EncoderReplica(EncoderConfig(**settings))
        # One loop, as the replica's batches belong to it.
        runner = patches.enter_context(asyncio.Runner())
        for load in loads:
            runner.run(_call(replica, *load, WARM_UP))
            spent.clear()
            batches.clear()
            began = time.perf_counter()
            loop_s, all_s = runner.run(_call(replica, *load, images))
            ms = {stage: seconds / images * 1e3 for stage, seconds in spent.items()}
            ms["event loop"] = loop_s / images * 1e3
            ms["handing over"] = all_s / images * 1e3 - sum(ms.values())
            per_s = images / (time.perf_counter() - began)
            found[load] = ms | {
                "all": all_s / images * 1e3,
                "images/s": per_s,
                "images a batch": images / len(batches),
            }
    return found


async def _call(replica: EncoderReplica, callers: int, size: int, images: int) -> tuple[float, float]:
    """Embed images; returns seconds of the event loop's thread, and of all threads."""
    files = product_jpegs(64)
    numbers = iter(range(images // size))

    async def caller() -> None:
        for number in numbers:
            inputs = [
                files[(number * size + place) % len(files)] + b"%d" % time.time_ns() for place in range(size)
            ]
            encoded = await replica.encode(inputs)
            assert all(isinstance(each, np.ndarray) for each in encoded.vectors)

    loop, everything = time.thread_time(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.thread_time() - loop, time.process_time() - everything


def _print(what: str, found: Mapping[Key, Mapping[str, float]]) -> None:
    if not found:
        return
    keys = list(dict.fromkeys(key for ms in found.values() for key in ms))
    print(f"\n| ms of processor time an image, by {what} | {' | '.join(keys)} |")
    print(f"| --- |{' --- |' * len(keys)}")
    for (callers, size), ms in found.items():
        values = " | ".join(f"{ms.get(key, 0.0):.{0 if key == 'images/s' else 2}f}" for key in keys)
        print(f"| {callers} × {size} | {values} |")


def _named(found: Mapping[Key, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {
        f"{callers}x{size}": {key: round(value, 3) for key, value in ms.items()}
        for (callers, size), ms in found.items()
    }


def _load(text: str) -> Key:
    callers, size = map(int, text.split("x"))
    return callers, size


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=640, help="images of each measurement (default: 640)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the service (default: 3)")
    parser.add_argument("--rest", type=float, default=5.0, help="seconds of rest")
    parser.add_argument("--only", choices=("service", "replica"), help="measure one of the two only")
    parser.add_argument("loads", nargs="*", help="callers x images of a request, such as 16x1")
    return parser.parse_args()


if __name__ == "__main__":
    main()
