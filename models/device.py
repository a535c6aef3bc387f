"""The device of a model: choosing it, batches that fit it, and copies to and from it beside its computing."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import ConfigError, ModelUnavailable
from models.config import EncoderConfig
from models.matching import Features

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.bfloat16}
"""Dtype of activations by precision; with int8 only the large matrices are 8 bit."""
_BATCHES_UNTIL_LARGER = 64
"""Full batches after which a size that did not fit is tried again: memory may have run short for a moment."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Device and dtype of activations; with `eight_bit` the large matrices are int8.

    Columns with activations beyond a positive `int8_threshold` are multiplied in `dtype`.
    """

    device: torch.device
    dtype: torch.dtype
    eight_bit: bool
    int8_threshold: float


def place(config: EncoderConfig) -> Placement:
    """Choose the device and dtype of the model, and set the CPU threads of this process.

    Raises:
        ConfigError: the configuration needs a GPU and there is none, or there is one that torch cannot use.
    """
    reserved = _has_reserved_gpu() if config.device == "auto" else None
    wants_gpu = config.device == "cuda" or (config.device == "auto" and reserved is not False)
    has_gpu = wants_gpu and _has_gpu(config.name)
    if config.device == "cuda" and not has_gpu:
        raise ConfigError(
            f"encoder {config.name} is set to device cuda, but this host shows no GPU; use auto or cpu"
        )
    if reserved and not has_gpu:
        raise ConfigError(
            f"encoder {config.name} reserves a GPU by num_gpus, but PyTorch finds none on this host; install a "
            "driver and a torch for it, or set device cpu"
        )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = "cuda" if has_gpu else "cpu"
    return Placement(
        torch.device(device), _DTYPES[config.precision], config.precision == "int8", config.int8_threshold
    )


def _has_reserved_gpu() -> bool | None:
    """Say whether Ray reserved a GPU for this process, by `num_gpus`; None without Ray.

    Ray hides no GPU from an actor that reserved none.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))


def _has_gpu(name: str) -> bool:
    """Say whether torch can use a GPU.

    `torch.cuda.is_available` says no as well where there is one that does not work. A model would then run on the
    CPU, many times slower, and nobody would know why.
    """
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except AssertionError:
        return False  # this torch is built for the CPU alone
    except RuntimeError as error:
        reason = str(error)
        if "Found no NVIDIA driver" in reason or "No CUDA GPUs are available" in reason:
            return False
        if found := re.search(r"too old \(found version (\d+)\)", reason):
            major, minor = divmod(int(found[1]) // 10, 100)
            reason = (
                f"its driver supports CUDA {major}.{minor}, and torch {torch.__version__} needs CUDA "
                f"{torch.version.cuda}; update the driver, install a torch for CUDA {major}.{minor}"
            )
        raise ConfigError(
            f"encoder {name}: the GPU of this host cannot be used: {reason}, or set device cpu"
        ) from error
    return torch.cuda.device_count() > 0


Batch = TypeVar("Batch", NDArray[np.uint8], Sequence[str], Sequence[Features])
Output = TypeVar("Output")


class DeviceBatches:
    """Runs a model on batches of at most `size` inputs: fewer where GPU memory does not suffice, later more again."""

    def __init__(self, model: str, sizes: Sequence[int], lost: Callable[[Exception], NoReturn]) -> None:
        """`sizes` are the sizes that batches may have at most, ascending; it begins with the last.

        `lost` is called with an error after which this process can use the device no more.
        """
        self._model, self._sizes, self._lost = model, sizes, lost
        self.size = sizes[-1]
        self._full_batches = 0

    def run(self, forward: Callable[[Batch], Output], inputs: Batch) -> list[Output]:
        """Run all inputs, in order; returns one output a batch.

        Raises:
            ModelUnavailable: the device has no memory for even one input.
        """
        outputs: list[Output] = []
        start = 0
        while start < len(inputs):
            batch = inputs[start : start + self.size]
            try:
                outputs.append(forward(batch))
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise ModelUnavailable(
                        f"{self._model} has not enough GPU memory for one input"
                    ) from error
                self.size = max(size for size in self._sizes if size < len(batch))
                self._full_batches = 0
            except RuntimeError as error:
                if is_fatal(error):
                    self._lost(error)
                raise
            else:
                start += len(batch)
                self._full_batches += len(batch) == self.size
                if self._full_batches >= _BATCHES_UNTIL_LARGER and self.size < self._sizes[-1]:
                    self.size = next(size for size in self._sizes if size > self.size)
                    self._full_batches = 0
                continue
            # Outside of the handler: the error's traceback holds the memory of the failed pass.
            torch.cuda.empty_cache()
        return outputs


def is_fatal(error: RuntimeError) -> bool:
    """Say whether a process can use CUDA no more after this error, as after a failed assertion in a kernel.

    torch raises AcceleratorError for errors of CUDA itself, and plain ones for those of its libraries. Memory that a
    library or the pinning of pages lacks is none: the next batch may find some.
    """
    if "out of memory" in str(error) or "ALLOC_FAILED" in str(error):
        return False
    return isinstance(error, torch.AcceleratorError) or str(error).startswith("CUDA error")


class Transfers:
    """Copies to and from the device, which a GPU does beside its computing; on a CPU nothing is copied.

    Nothing here waits for a GPU but `Fetched`. So Python prepares the next batch while the GPU works.
    Copies in the background need pinned memory. torch keeps what it has pinned, and uses it again by its size.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.are_apart = device.type == "cuda"
        """True where copies and computing go on by themselves."""
        self._stream = torch.cuda.Stream(device) if self.are_apart else None  # type: ignore[no-untyped-call]

    def gather(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Stack images in memory from which they are copied in the background."""
        if not self.are_apart:
            return np.stack(images)
        gathered = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=True).numpy()
        return np.stack(images, out=gathered)

    def send(self, values: Tensor) -> Tensor:
        """Return values on the device, where what is computed next waits for them.

        Memory that is pinned already must stay as it is until the results are there.
        """
        if self._stream is None:
            return values
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            sent = values.pin_memory().to(self._device, non_blocking=True)
        computing.wait_stream(self._stream)
        # Else their memory would be free for the next copy while this batch still reads it.
        sent.record_stream(computing)
        return sent

    def fetch(self, values: Tensor, source: object) -> "Fetched":
        """Begin to copy results, which were computed from what `source` holds."""
        # Cast first: normalizing in less than float32 loses neighbors.
        values = values.float()
        if not self.are_apart:
            return Fetched(values, None, None)
        here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        # On the stream that computes: the next replay of a CUDA graph writes its results to the same place.
        here.copy_(values, non_blocking=True)
        # Without asking again and again, which would take a core that decoding needs.
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record()
        return Fetched(here, done, source)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Results that may be on their way from the device."""

    _values: Tensor
    _done: torch.cuda.Event | None
    _source: object
    """Pinned memory that the device may still copy from."""

    def rows(self) -> NDArray[np.float32]:
        """Wait for the results, in any thread."""
        if self._done is not None:
            self._done.synchronize()
        rows: NDArray[np.float32] = self._values.numpy()
        return rows
