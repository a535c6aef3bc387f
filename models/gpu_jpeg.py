"""Decoding of JPEG files on a GPU, for builds: which files go there, by which library, and on to model input.

An encoder with `decode_on_gpu` has this beside the decoding on the CPU, which reads every other file.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from core.concurrency import batched_by_bytes
from core.errors import ConfigError
from models.device import is_fatal
from models.encoder import Pixels
from models.images import ImageLimits, baseline_pixels
from models.preprocessing import Preprocessing

EXTRA = "gpu-jpeg"
"""The project's extra that brings the library."""
GPU_JPEG = "full size, nvJPEG by torchcodec, resized in float32"
"""How pixels come about on the GPU; part of the fingerprint of versions that decode there."""
_CHANNELS = 3
_log = logging.getLogger(__name__)


class GpuJpegDecoder(Protocol):
    """Decodes JPEG files on a GPU."""

    def __call__(self, files: Sequence[bytes]) -> list[Tensor | None]:
        """Return uint8 (3, height, width) in RGB on the device for each file; None for one that it refuses."""


class GpuJpegs:
    """Turns JPEG files into model input on a GPU; any thread may call it."""

    def __init__(
        self,
        decode: GpuJpegDecoder,
        preprocess: Callable[[Tensor], Tensor | None],
        limits: ImageLimits,
        device: torch.device,
    ) -> None:
        """`preprocess` returns uint8 (3, height, width) on the device, or None where the CPU has to."""
        self._decode, self._preprocess, self._limits = decode, preprocess, limits
        # Beside the model, which would have to wait on a stream that both use.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        # The device holds the pixels of one list, whatever the number of threads.
        self._one_at_a_time = threading.Lock()

    def __call__(self, files: Sequence[bytes]) -> list[Pixels | None]:
        """Return the model input of each file; None for what the CPU has to decode."""
        answers: list[Pixels | None] = []
        most_bytes = _CHANNELS * self._limits.max_pixels_in_flight
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            # By decoded bytes: what the device holds at once is bounded as on a CPU.
            for some in batched_by_bytes(files, _decoded_bytes, most_bytes=most_bytes):
                try:
                    with self._one_at_a_time:
                        answers += self._answer(some)
                except RuntimeError as error:
                    # Memory was short. Or the device has failed, which the model finds out in its next pass.
                    _log.warning("%d JPEG files could not be decoded on the GPU: %s", len(some), error)
                    answers += [None] * len(some)
        return answers

    def _answer(self, files: Sequence[bytes]) -> list[Pixels | None]:
        decoded = [None if each is None else self._preprocess(each) for each in self._decode(files)]
        return [None if each is None else each.cpu().numpy() for each in decoded]


def _decoded_bytes(data: bytes) -> int:
    return _CHANNELS * baseline_pixels(data)


def gpu_jpegs(preprocessing: Preprocessing, limits: ImageLimits, device: torch.device) -> GpuJpegs:
    """Load the library that decodes on a device.

    Raises:
        ConfigError: there is no GPU, or the library is not installed.
    """
    if device.type != "cuda":
        raise ConfigError("decode_on_gpu needs a GPU, and this process has none; leave it out")
    return GpuJpegs(torchcodec_on(device), preprocessing.apply_on_device, limits, device)


def torchcodec_on(device: torch.device) -> GpuJpegDecoder:
    """Return torchcodec's decoder for a device; it has one for CUDA, and one for the CPU.

    Raises:
        ConfigError: it is not installed, or does not fit this torch.
    """
    try:
        from torchcodec.decoders import decode_jpeg
    except (ImportError, OSError, RuntimeError) as error:
        message = f"decode_on_gpu needs torchcodec: pip install --editable '.[server,{EXTRA}]' ({error})"
        raise ConfigError(message) from error

    def decode(files: Sequence[bytes]) -> list[Tensor | None]:
        try:
            return list(decode_jpeg(list(files), mode="RGB", device=device))
        except RuntimeError as error:
            if is_fatal(error):
                raise
            if len(files) == 1:
                _log.warning("torchcodec refuses a JPEG file, which the CPU decodes: %s", error)
                return [None]
        # It answers for all files or none.
        return [each for data in files for each in decode([data])]

    return decode
