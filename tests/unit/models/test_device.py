"""On a GPU: nothing on the way to the device waits for it, and a batch begins before the one before is read."""

import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from core.errors import Internal, ModelUnavailable
from models import torch_encoder, transformers
from models.config import EncoderConfig
from models.device import Fetched, Transfers
from models.encoder import load_encoder
from models.torch_encoder import TorchEncoder
from tests.support import checkpoints, tiny_transformers
from tests.support.checkpoints import DEMO

META = torch.device("meta")
TEXTS = ["a red dress", "blue striped shirt on a wooden floor", "hat"]


class Queue(TorchDispatchMode):
    """A device that only takes work: tensors there hold no values, and a copy to it that waits is refused."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.device == META:
            for each in args:
                if isinstance(each, Tensor) and each.device != META and each.dim():
                    raise AssertionError(f"{func} copies {tuple(each.shape)} from main memory")
        return found


class ToQueue(Transfers):
    """Copies to the device in the background."""

    def send(self, values: Tensor) -> Tensor:
        return torch.empty(values.shape, dtype=values.dtype, device=META)

    def fetch(self, values: Tensor, source: object) -> Fetched:
        assert values.device == META
        return super().fetch(values, source)


def module_of(tower: Any) -> nn.Module:
    found = tower if isinstance(tower, nn.Module) else tower.__self__
    assert isinstance(found, nn.Module)
    return found


def encoder_config(family: str, directory: Path, **settings: Any) -> EncoderConfig:
    stated = {"name": "tested", "family": family, "checkpoint": str(directory), "device": "cpu"}
    return EncoderConfig.model_validate(stated | settings)


def queued(family: str, directory: Path) -> TorchEncoder:
    encoder = load_encoder(encoder_config(family, directory))
    assert isinstance(encoder, TorchEncoder)
    for tower in (encoder._image, encoder._text):
        if tower is not None:
            module_of(tower).to(META)
    encoder._transfers = ToQueue(torch.device("cpu"))
    # Constants that are copied once.
    encoder._preprocessing.normalize(torch.empty((1, 3, 4, 4), device=META), torch.float32)
    return encoder


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "openclip": ("openclip", lambda _: DEMO / "openclip"),
    "dinov2": ("dinov2", checkpoints.dinov2),
    "blip2 retrieval": ("blip2", checkpoints.retrieval_blip2),
    "blip2 captioning": ("blip2", checkpoints.captioning_blip2),
    "timm": ("timm", checkpoints.timm_model),
    **{
        name: ("transformers", make)
        for name, make in {**tiny_transformers.DUAL_ENCODERS, **tiny_transformers.BACKBONES}.items()
    },
}


MAKES_A_MASK = ("align",)
"""Models that make a mask of ones themselves, which transformers then reads."""
MASKED = ("blip2 retrieval", "clip", "metaclip2", "chinese_clip", "altclip", *MAKES_A_MASK)
"""Models for which texts of different lengths are padded and masked; transformers reads the mask."""


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_nothing_waits_for_the_device_before_results_are_read(name: str, tmp_path: Path) -> None:
    family, make = CHECKPOINTS[name]
    encoder = queued(family, make(tmp_path / "made"))
    images = np.repeat(encoder._sample()[None], 3, axis=0)
    with Queue():
        encoder._start(encoder._run_images, images)
        if encoder._text is None:
            return
        for texts, waits in ((TEXTS[:1], MAKES_A_MASK), (TEXTS, MASKED)):
            with pytest.raises(RuntimeError, match="item") if name in waits else nullcontext():
                encoder._start(encoder._run_texts, texts)


class Answering:
    """Results that come when they are let go, or fail."""

    def __init__(self, values: Tensor, source: object, log: list[str]) -> None:
        self.values, self.source, self.log = values, source, log
        self.error: Exception | None = None

    def rows(self) -> np.ndarray:
        self.log.append("read")
        if self.error is not None:
            raise self.error
        return self.values.numpy()


class Apart(Transfers):
    """A device that works by itself, on the CPU."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.are_apart = True
        self.log, self.results = list[str](), list[Answering]()

    def gather(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(images)

    def fetch(self, values: Tensor, source: object) -> Any:
        self.log.append("begun")
        self.results.append(Answering(values.float(), source, self.log))
        return self.results[-1]


@pytest.fixture
def ahead() -> TorchEncoder:
    encoder = load_encoder(encoder_config("openclip", DEMO / "openclip"))
    assert isinstance(encoder, TorchEncoder)
    encoder._transfers, encoder.runs_ahead = Apart(), True
    return encoder


def log_of(encoder: TorchEncoder) -> Apart:
    assert isinstance(encoder._transfers, Apart)
    return encoder._transfers


def test_a_batch_begins_before_the_one_before_is_read_and_both_have_their_own_answers(
    ahead: TorchEncoder,
) -> None:
    some = np.random.default_rng(0).integers(0, 256, (5, *ahead._sample().shape), np.uint8)
    images, texts = ahead.start_images(list(some)), ahead.start_texts(TEXTS)
    assert log_of(ahead).log == ["begun", "begun"]
    # The device may still copy from them.
    assert log_of(ahead).results[0].source is not None
    for found, expected in ((texts(), ahead.encode_texts(TEXTS)), (images(), ahead.encode_images(some))):
        np.testing.assert_array_equal(np.stack(found), np.stack(expected))  # type: ignore[arg-type]
    assert ahead.start_images([])() == []


def test_a_kernel_that_failed_is_found_where_its_batch_is_read(
    ahead: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (ahead.start_images([ahead._sample()] * count) for count in (2, 1))
    log_of(ahead).results[0].error = torch.AcceleratorError("CUDA error: device-side assert triggered")
    lost = first()
    assert len(lost) == 2
    assert all(isinstance(each, ModelUnavailable) for each in lost)
    assert isinstance(second()[0], np.ndarray)
    for lack in (MemoryError(), torch.AcceleratorError("CUDA error: out of memory")):
        log_of(ahead).results[1].error = lack
        assert isinstance(second()[0], ModelUnavailable)
    log_of(ahead).results[1].error = ValueError("a bug of ours")
    assert isinstance(second()[0], Internal)
    monkeypatch.setattr(os, "_exit", lambda _: pytest.fail("ended", pytrace=False))
    ahead.ends_process = True
    with pytest.raises(pytest.fail.Exception, match="ended"):
        first()


def test_an_image_that_breaks_the_batch_as_it_begins_fails_alone(ahead: TorchEncoder) -> None:
    image = ahead._image

    def fails_on_three(values: Tensor) -> Tensor:
        if len(values) == 3:
            raise torch.OutOfMemoryError("no room")
        return image(values)

    ahead._image = fails_on_three
    some = [ahead._sample()] * 3
    assert all(isinstance(each, np.ndarray) for each in ahead.start_images(some)())
    # In parts, each of which is read only when all have begun.
    assert log_of(ahead).log[:3] == ["begun", "begun", "read"]

    def fails(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    ahead._image = fails
    assert all(isinstance(each, ModelUnavailable) for each in ahead.start_images(some)())


def test_the_memory_of_a_batch_that_fails_as_it_begins_is_free_before_it_is_tried_again(
    ahead: TorchEncoder,
) -> None:
    image, held = ahead._image, list[weakref.ref[Tensor]]()

    def fails_once(values: Tensor) -> Tensor:
        if not held:
            activations = values.clone()
            held.append(weakref.ref(activations))
            raise ValueError("a bug of a kernel")
        assert held[0]() is None
        return image(values)

    ahead._image = fails_once
    assert isinstance(ahead.start_images([ahead._sample()])()[0], np.ndarray)


class Streams:
    """What a GPU's streams are asked for, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        for name in ("Stream", "Event"):
            monkeypatch.setattr(torch.cuda, name, partial(self._made, name.lower()))
        monkeypatch.setattr(torch.cuda, "current_stream", partial(self._made, "computing"))
        monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext(self.asked.append("on the stream")))
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *of, pin_memory=False, **how: empty(*of, **how))
        monkeypatch.setattr(Tensor, "pin_memory", lambda each: each)
        monkeypatch.setattr(
            Tensor, "to", lambda each, _device, non_blocking: self._copied(each, non_blocking)
        )
        monkeypatch.setattr(Tensor, "record_stream", lambda _each, _: self.asked.append("kept"))

    def _made(self, name: str, *_: object, **__: object) -> Any:
        def noted(method: str) -> Callable[..., None]:
            return lambda *_: self.asked.append(f"{name} {method}")

        return SimpleNamespace(**{each: noted(each) for each in ("wait_stream", "record", "synchronize")})

    def _copied(self, values: Tensor, non_blocking: bool) -> Tensor:
        assert non_blocking
        self.asked.append("copied")
        return values.clone()


def test_copies_go_beside_computing_which_waits_for_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    transfers = Transfers(torch.device("cuda"))
    gathered = transfers.gather([np.full((3, 2, 2), level, np.uint8) for level in (1, 2)])
    sent = transfers.send(torch.from_numpy(gathered))
    assert streams.asked == ["on the stream", "copied", "computing wait_stream", "kept"]
    fetched = transfers.fetch(sent[:, 0, 0, :].to(torch.float32, non_blocking=True), gathered)
    assert streams.asked[-1] == "event record"
    assert fetched.rows().tolist() == [[1, 1], [2, 2]]
    assert streams.asked[-1] == "event synchronize"


def compiled(
    family: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[TorchEncoder, CompileCounter]:
    """Load an encoder whose towers are compiled as for a GPU, but for the kernels."""
    counter, build = CompileCounter(), torch.compile

    def traced(tower: Callable[..., Tensor], mode: str, dynamic: bool) -> Callable[..., Tensor]:
        assert mode == "reduce-overhead"
        return build(tower, backend=counter, dynamic=dynamic)

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", traced)
    for module in (torch_encoder, transformers):
        monkeypatch.setattr(module, "compiles", lambda config, _: config.compile)
    encoder = load_encoder(encoder_config(family, checkpoint, compile=True, max_batch_size=96))
    assert isinstance(encoder, TorchEncoder)
    return encoder, counter


@pytest.mark.parametrize("family", ["openclip", "clip"])
def test_a_compiled_tower_is_compiled_for_every_size_before_it_serves_and_never_again(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = DEMO / "openclip" if family == "openclip" else tiny_transformers.clip(tmp_path / "clip")
    family = family if family == "openclip" else "transformers"
    encoder, counter = compiled(family, directory, monkeypatch)
    sizes = encoder._graph_sizes
    assert sizes == encoder._text_sizes == (1, 2, 4, 8, 16, 32, 48, 64, 96)
    frames = counter.frame_count
    # Both towers at each size. torch would leave what is beyond the eighth to the interpreter.
    assert frames == 2 * len(sizes)
    plain = load_encoder(encoder_config(family, directory))
    long = "a striped shirt and a hat " * encoder.context_length
    for count in (1, 3, 33, 70, 97):
        texts = [TEXTS[place % 3] if place else long for place in range(count)]
        images = np.random.default_rng(count).integers(0, 256, (count, *encoder._sample().shape), np.uint8)
        for found, expected in (
            (encoder.encode_texts(texts), plain.encode_texts(texts)),
            (encoder.encode_images(images), plain.encode_images(images)),
        ):
            np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=1e-5)  # type: ignore[arg-type]
    assert counter.frame_count == frames
