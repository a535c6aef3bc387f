"""Checks of the device path on a GPU: `python -m tests.gpu.checks`, which tests/gpu/run.sh calls.

Each check runs in a process of its own and fails alone. The models have the published shapes and random weights.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn
from unittest.mock import patch

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.images import product_jpegs
from models import device, torch_encoder
from models.config import EncoderConfig
from models.decode_processes import DecodeProcesses, Slots
from models.device import place
from models.encoder import Pixels
from models.timm import preprocessing
from models.torch_encoder import TorchEncoder, Towers

Figures = dict[str, Any]
LARGE, HUGE, SMALL = "vit_large_patch14_clip_224", "vit_huge_patch14_clip_224", "test_vit"
IN_FLIGHT = 2
IMAGES_A_TASK = 8
LIMIT_S = 460.0
"""Time after which no check begins, and what is left of it for the last."""


@dataclass(frozen=True, slots=True)
class Host:
    """Where and how long the checks run: `cuda`, or `cpu` with a small model for the test of this file."""

    device: str
    batches: int
    batch: int

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"

    def model(self, architecture: str) -> str:
        return architecture if self.is_gpu else SMALL

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()


def encoder_of(
    host: Host,
    architecture: str,
    tower: Callable[[Any], Callable[[Tensor], Tensor]] | None = None,
    **settings: Any,
) -> TorchEncoder:
    """Make an encoder of random weights; `tower` makes its image tower of the model."""
    stated = {"name": "checked", "family": "timm", "checkpoint": architecture, "device": host.device}
    config = EncoderConfig.model_validate(
        stated | {"max_batch_size": host.batch, "decode_threads": 2} | settings
    )
    placement = place(config)
    torch.manual_seed(0)
    with torch.device(placement.device):
        model = timm.create_model(architecture, num_classes=0).to(placement.dtype).eval()
    towers = Towers(
        image=tower(model) if tower else model,
        text=None,
        preprocessing=preprocessing(timm.data.resolve_model_data_config(model)),
        files=(),
        architecture=architecture,
        pooling="own",
    )
    return TorchEncoder(config, towers, placement)


def pixels_of(encoder: TorchEncoder, count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *encoder._sample().shape), dtype=np.uint8)


def sound(answers: Sequence[Any]) -> list[Any]:
    """Return the answers.

    Raises:
        Exception: one of them is an error.
    """
    for each in answers:
        if isinstance(each, Exception):
            raise each
    return list(answers)


def good(answers: Sequence[Any]) -> NDArray[np.float32]:
    """Stack vectors; raises as `sound`."""
    return np.stack(sound(answers))


class Timed:
    """An image tower whose begin and end on the device are noted."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.model = model
        self.times: list[tuple[Any, Any]] = []

    def __call__(self, values: Tensor) -> Tensor:
        begin = self._mark(values)
        found = self.model(values)
        self.times.append((begin, self._mark(values)))
        return found

    @staticmethod
    def _mark(values: Tensor) -> Any:
        if not values.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def idle_share(self) -> float:
        """Return the share of the time from the first batch to the last in which none was computed."""

        def between(begin: Any, end: Any) -> float:
            return end - begin if isinstance(begin, float) else float(begin.elapsed_time(end))

        busy = sum(between(*each) for each in self.times)
        return 1 - busy / between(self.times[0][0], self.times[-1][1])


def ceiling(host: Host, encoder: TorchEncoder) -> float:
    """Return images/s of the forward pass alone, of values that lie on the device."""
    with torch.inference_mode():
        values = encoder._values(pixels_of(encoder, host.batch))
        for _ in range(3):
            encoder._image(values)
        host.wait()
        began = time.perf_counter()
        for _ in range(host.batches):
            encoder._image(values)
        host.wait()
    return host.batches * host.batch / (time.perf_counter() - began)


def _read(started: Future[Callable[[], list[Any]]]) -> list[Any]:
    return started.result()()


def fed(
    encoder: TorchEncoder,
    batches: Iterator[Sequence[Pixels] | Pixels],
    model: ThreadPoolExecutor | None = None,
) -> int:
    """Feed a model as a replica does, by a thread that begins and another that reads; returns how many images.

    `model` is the thread that has loaded a compiled model.
    """
    done = 0
    with ThreadPoolExecutor(1) as other, ThreadPoolExecutor(1) as reader:
        model = model or other
        under_way: deque[Future[list[Any]]] = deque()
        for batch in batches:
            if len(under_way) == IN_FLIGHT:
                done += len(good(under_way.popleft().result()))
            started = model.submit(encoder.start_images, batch)
            under_way.append(reader.submit(_read, started))
        for each in under_way:
            done += len(good(each.result()))
    return done


def driver(host: Host) -> Figures:
    """The driver is new enough for the wheel, or the error names both."""
    found: Figures = {
        "torch": torch.__version__,
        "wheel_cuda": torch.version.cuda,
        "python": sys.version.split()[0],
    }
    if host.is_gpu:
        asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        found["gpu"] = subprocess.run(
            asked, capture_output=True, text=True, timeout=30, check=False
        ).stdout.strip()
    encoder = encoder_of(host, SMALL, precision="fp32")
    return found | {"ok": encoder.info.device == host.device}


def waits_for_nothing(host: Host) -> Figures:
    """No call on the way to the device waits for it, and the vectors are those of the CPU."""
    encoder = encoder_of(host, SMALL, precision="fp32")
    batch = pixels_of(encoder, host.batch)
    good(encoder.start_images(list(batch))())
    if host.is_gpu:
        # Whatever waits raises, but for events, for which the reader is to wait.
        torch.cuda.set_sync_debug_mode("error")
    try:
        started = [encoder.start_images(list(batch)) for _ in range(IN_FLIGHT)]
    finally:
        if host.is_gpu:
            torch.cuda.set_sync_debug_mode("default")
    first, second = (good(each()) for each in started)
    on_cpu = encoder_of(Host("cpu", 1, host.batch), SMALL, precision="fp32")
    # Weights that a GPU draws by itself differ.
    encoder_model: Any = encoder._image
    cpu_model: Any = on_cpu._image
    cpu_model.load_state_dict({name: each.cpu() for name, each in encoder_model.state_dict().items()})
    least = float((first * good(on_cpu.encode_images(batch))).sum(axis=1).min())
    return {"least_cosine_to_cpu": least, "ok": least >= 0.999 and np.allclose(first, second, atol=1e-5)}


def from_memory(host: Host, architecture: str) -> Figures:
    """Pixels in memory keep the model as busy as it can be."""
    timed: list[Timed] = []

    def tower(model: Any) -> Timed:
        timed.append(Timed(model))
        return timed[0]

    encoder = encoder_of(host, host.model(architecture), tower, precision="bf16")
    best = ceiling(host, encoder)
    batch = pixels_of(encoder, host.batch)
    fed(encoder, iter([batch] * 3))
    timed[0].times.clear()
    began = time.perf_counter()
    images = fed(encoder, iter([batch] * host.batches))
    rate = images / (time.perf_counter() - began)
    idle = timed[0].idle_share()
    return {
        "images_per_s": rate,
        "forward_ceiling": best,
        "share": rate / best,
        "gpu_idle": idle,
        "ok": not host.is_gpu or (rate / best >= 0.95 and idle <= 0.05),
    }


def from_jpegs(host: Host, architecture: str) -> Figures:
    """JPEG files, decoded in processes, keep the slower of decoding and model busy."""
    encoder = encoder_of(host, host.model(architecture), precision="bf16")
    best = ceiling(host, encoder)
    files = product_jpegs(IMAGES_A_TASK)
    workers = max(1, min(64, (os.cpu_count() or 2) - 2))
    # What is decoded, what waits for the rest of its batch, and what is in the model.
    count = 2 * (workers + 1) * IMAGES_A_TASK + 4 * host.batch
    processes = DecodeProcesses(encoder.decoder(), Slots(encoder._sample().shape, count), workers)
    tasks = host.batches * host.batch // IMAGES_A_TASK
    try:
        with ThreadPoolExecutor(workers) as threads:

            def decoded(tasks: int) -> Iterator[list[Pixels]]:
                """Yield the images of each task, and hold no more of them than there are slots."""
                under_way: deque[Future[list[Any]]] = deque()
                for _ in range(tasks):
                    under_way.append(threads.submit(processes.decode, files))
                    if len(under_way) > workers:
                        yield sound(under_way.popleft().result())
                while under_way:
                    yield sound(under_way.popleft().result())

            def batches(tasks: int) -> Iterator[list[Pixels]]:
                held: list[Pixels] = []
                for some in decoded(tasks):
                    held += some
                    while len(held) >= host.batch:
                        yield held[: host.batch]
                        held = held[host.batch :]
                if held:
                    yield held

            for _ in decoded(2 * workers):
                pass
            began = time.perf_counter()
            for _ in decoded(tasks):
                pass
            decode_rate = tasks * IMAGES_A_TASK / (time.perf_counter() - began)
            fed(encoder, batches(2 * workers))
            began = time.perf_counter()
            rate = fed(encoder, batches(tasks)) / (time.perf_counter() - began)
    finally:
        processes.close()
    share = rate / min(best, decode_rate)
    return {
        "images_per_s": rate,
        "forward_ceiling": best,
        "decode_ceiling": decode_rate,
        "decode_processes": workers,
        "share": share,
        "ok": not host.is_gpu or share >= 0.9,
    }


def compiled(host: Host, architecture: str, sizes: Sequence[int]) -> Figures:
    """A compiled model is ready after so long, answers alike, is so much faster, and is kept as busy.

    Beside the largest batch few `sizes` are compiled, for each takes its time.
    """
    architecture = host.model(architecture)
    eager = encoder_of(host, architecture, precision="bf16")
    weights: Any = eager._image
    batch = pixels_of(eager, host.batch)

    def load() -> TorchEncoder:
        with patch.object(torch_encoder, "_GRAPH_SIZES", sizes):
            encoder = encoder_of(host, architecture, precision="bf16", compile=True)
        encoder.warm_up()
        return encoder

    with ThreadPoolExecutor(1) as model:
        began = time.perf_counter()
        made = model.submit(load).result()
        took_s = time.perf_counter() - began
        other: Any = getattr(made._image, "_orig_mod", made._image)
        other.load_state_dict(weights.state_dict())
        answers = model.submit(made.encode_images, batch).result()
        least = float((good(eager.encode_images(batch)) * good(answers)).sum(axis=1).min())
        plain, fast = ceiling(host, eager), model.submit(ceiling, host, made).result()
        fed(made, iter([batch] * 3), model)
        began = time.perf_counter()
        rate = fed(made, iter([batch] * host.batches), model) / (time.perf_counter() - began)
    is_alike = least >= 0.99 and bool(made._graph_sizes) == host.is_gpu
    return {
        "load_and_compile_s": took_s,
        "sizes": list(made._graph_sizes),
        "eager_ceiling": plain,
        "forward_ceiling": fast,
        "images_per_s": rate,
        "share": rate / fast,
        "least_cosine": least,
        "ok": is_alike and (not host.is_gpu or rate / fast >= 0.95),
    }


def out_of_memory(host: Host) -> Figures:
    """A batch that does not fit is split, and batches grow again when there is memory."""
    full = False

    def tower(model: Any) -> Callable[[Tensor], Tensor]:
        def run(values: Tensor) -> Tensor:
            if full and not host.is_gpu and len(values) > host.batch // 2:
                raise torch.OutOfMemoryError("no room")
            found: Tensor = model(values)
            return found

        return run

    encoder = encoder_of(host, host.model(LARGE), tower, precision="fp32")
    batch = pixels_of(encoder, host.batch)
    expected = good(encoder.start_images(batch)())
    if host.is_gpu:
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved()
        torch.cuda.reset_peak_memory_stats()
        good(encoder.start_images(batch)())
        needed = torch.cuda.max_memory_reserved() - held
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.6 * needed) / total)
    full = True
    with patch.object(device, "_BATCHES_UNTIL_LARGER", 4):
        small = good(encoder.start_images(batch)())
        shrunk = encoder._batches.size
        if host.is_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0)
        full = False
        for _ in range(10):
            good(encoder.start_images(batch)())
    grown = encoder._batches.size
    least = float((expected * small).sum(axis=1).min())
    sizes = {"size": host.batch, "shrunk_to": shrunk, "grown_to": grown, "least_cosine": least}
    return sizes | {"ok": shrunk < host.batch == grown and least >= 0.999}


def poisoned(host: Host) -> Figures:
    """An assertion that fails on the device ends a process of Ray's with status 1."""
    command = [sys.executable, "-m", "tests.gpu.checks", "--device", host.device, "--only", "poison"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = "the device of the model failed" in done.stderr
    return {"status": done.returncode, "said": said, "ok": done.returncode == 1 and said}


def poison(host: Host) -> Figures:
    """End this process by a failed assertion on the device."""

    def fails(values: Tensor) -> Tensor:
        if not host.is_gpu:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        beyond = torch.full((len(values),), 9, device=values.device)
        return torch.zeros((1, 4), device=values.device)[beyond]

    encoder = encoder_of(host, SMALL, precision="fp32")
    encoder.ends_process, encoder._image = True, fails
    answers = encoder.start_images(pixels_of(encoder, 2))()
    return {"ok": False, "survived": str(answers[0])}


def threads(host: Host) -> Figures:
    """A compiled model is recorded and replayed in one thread, and its answers are read in another."""
    settings: Figures = {"precision": "fp32", "compile": True, "max_batch_size": 8}
    eager = encoder_of(host, SMALL, precision="fp32")
    weights: Any = eager._image
    images = pixels_of(eager, 8)

    def load() -> TorchEncoder:
        with patch.object(torch_encoder, "_GRAPH_SIZES", (1, 4)):
            encoder = encoder_of(host, SMALL, **settings)
        other: Any = getattr(encoder._image, "_orig_mod", encoder._image)
        other.load_state_dict(weights.state_dict())
        encoder.warm_up()
        return encoder

    least = 1.0
    with ThreadPoolExecutor(1) as model:
        encoder = model.submit(load).result()
        for count in (1, 3, 8, 1, 8):
            started = [model.submit(encoder.start_images, images[:count]) for _ in range(IN_FLIGHT)]
            expected = good(eager.encode_images(images[:count]))
            for each in started:
                least = min(least, float((good(each.result()()) * expected).sum(axis=1).min()))
    recorded = list(encoder._graph_sizes)
    return {
        "recorded": recorded,
        "least_cosine": least,
        "ok": least >= 0.999 and bool(recorded) == host.is_gpu,
    }


CHECKS: dict[str, tuple[Callable[[Host], Figures], float]] = {
    "driver": (driver, 60),
    "waits_for_nothing": (waits_for_nothing, 60),
    "memory_large": (lambda host: from_memory(host, LARGE), 60),
    "memory_huge": (lambda host: from_memory(host, HUGE), 60),
    "jpegs_large": (lambda host: from_jpegs(host, LARGE), 90),
    "jpegs_huge": (lambda host: from_jpegs(host, HUGE), 90),
    "out_of_memory": (out_of_memory, 60),
    "poisoned": (poisoned, 90),
    "threads": (threads, 120),
    "compiled_large": (lambda host: compiled(host, LARGE, (1,)), 180),
    "compiled_huge": (lambda host: compiled(host, HUGE, ()), 180),
}
"""Checks, and the longest time of each in seconds."""


def run_apart(name: str, options: Sequence[str], limit_s: float) -> Figures:
    """Run a check in a process of its own; returns its figures, or what went wrong."""
    command = [sys.executable, "-m", "tests.gpu.checks", "--only", name, *options]
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        lines = done.stdout.strip().splitlines()
        try:
            found: Figures = json.loads(lines[-1])
        except (IndexError, ValueError):
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            found = {"ok": False, "error": reason, "status": done.returncode}
    except subprocess.TimeoutExpired:
        found = {"ok": False, "error": f"not done after {limit_s:.0f} s"}
    return found | {"took_s": time.monotonic() - began}


def main() -> NoReturn:
    """Run all checks or one; the status is 1 where one has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--only", choices=(*CHECKS, "poison"), action="append", help="a check; by default all"
    )
    options = parser.parse_args()
    host = Host("cuda", 60, 64) if options.device == "cuda" else Host("cpu", 4, 8)
    if options.only == ["poison"]:
        print(json.dumps(poison(host)))
        sys.exit(0)
    if options.only and len(options.only) == 1:
        print(json.dumps(CHECKS[options.only[0]][0](host)))
        sys.exit(0)
    results: dict[str, Figures] = {}
    until = time.monotonic() + LIMIT_S
    for name in options.only or CHECKS:
        limit_s = min(CHECKS[name][1], until - time.monotonic())
        if limit_s > 0:
            results[name] = run_apart(name, ["--device", options.device], limit_s)
        else:
            results[name] = {"ok": False, "error": "there was no time left"}
        verdict = "ok" if results[name]["ok"] else "FAILED"
        shown = ", ".join(f"{key} {_short(value)}" for key, value in results[name].items() if key != "ok")
        print(f"{name:18} {verdict:7} {shown}", flush=True)
    print(json.dumps(results))
    sys.exit(not all(each["ok"] for each in results.values()))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
