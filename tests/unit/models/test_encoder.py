"""What the base class promises, whatever the family; each input fails alone; a model in this process."""

import asyncio
import os
import sys
import weakref
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from core.errors import ConfigError, Internal, InvalidImage, InvalidInput, ModelUnavailable, VitrineError
from core.types import EncoderInfo, EncoderInput, Vector
from models.config import EncoderConfig
from models.device import Placement, place
from models.encoder import Encoder, Pixels, answer_each, load_encoder
from models.images import Decoded, ImageLimits
from models.local_encoder import LocalEncoder
from models.preprocessing import Preprocessing
from models.torch_encoder import TorchEncoder, Towers
from tests.support.image_files import file, png

INFO = EncoderInfo("tested", "fake", "", "0" * 12, 2, ("image",), "fp32", "cpu")


class FirstPixel(Encoder):
    """Answers with the first two values of an image, and odd ones where they are odd."""

    def preprocess(self, image: Decoded) -> Pixels:
        return np.asarray(image.image.resize((2, 2))).transpose(2, 0, 1)

    def forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = batch[:, 0, 0, :].astype(np.float32)
        rows[rows[:, 0] == 13] = np.nan
        rows[rows[:, 0] == 14] = np.inf
        return rows


def image(first: int) -> Pixels:
    return np.full((3, 2, 2), first, np.uint8)


@pytest.fixture
def encoder() -> FirstPixel:
    return FirstPixel(INFO, ImageLimits(), None)


def test_vectors_have_length_one(encoder: FirstPixel) -> None:
    (vector,) = encoder.encode_images([image(200)])
    assert isinstance(vector, np.ndarray)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1)


@pytest.mark.parametrize("bad", [0, 13, 14])
def test_a_vector_without_length_or_meaning_is_an_error_of_its_input_alone(
    encoder: FirstPixel, bad: int
) -> None:
    before, broken, after = encoder.encode_images([image(200), image(bad), image(9)])
    assert isinstance(before, np.ndarray)
    assert isinstance(broken, InvalidInput)
    assert isinstance(after, np.ndarray)


@pytest.mark.parametrize("bad", [200, 13])
def test_images_that_are_gathered_already_have_the_same_answers(
    encoder: FirstPixel, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [image(200), image(bad), image(9)]
    alone = encoder.encode_images(images)
    forward, sizes = encoder.forward, list[int]()

    def fails_on_thirteen(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.append(len(batch))
        if (batch[:, 0, 0, 0] == 13).any():
            raise ZeroDivisionError("a bug of ours")
        return forward(batch)

    monkeypatch.setattr(encoder, "forward", fails_on_thirteen)
    together = encoder.encode_images(np.stack(images))
    # A batch that fails is split.
    assert (sizes[0], 2 in sizes) == (3, bad == 13)
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else isinstance(other, VitrineError)


class Tower(torch.nn.Module):
    """Averages pixels; like a small GPU, it has room for `room` images at a time."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.sizes = room, list[int]()
        self.activations = weakref.ref(self)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(pixels))
        activations = pixels.clone()
        self.activations = weakref.ref(activations)
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("no room")
        return pixels.mean(dim=(2, 3))


def tower_encoder(tower: Tower, **settings: Any) -> TorchEncoder:
    preprocessing = Preprocessing("squash", (4, 4), (4, 4), "bicubic", (0.0,) * 3, (1.0,) * 3)
    config = EncoderConfig(name="tested", family="timm", checkpoint="any/thing", **settings)
    placement = Placement(torch.device("cpu"), torch.float32, eight_bit=False, int8_threshold=0)
    return TorchEncoder(config, Towers(tower, None, preprocessing, (), "tower", "mean"), placement)


def images(count: int) -> list[Pixels]:
    return [np.full((3, 4, 4), 9 + seed, np.uint8) for seed in range(count)]


def test_a_batch_that_does_not_fit_is_halved_until_there_is_room_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("models.device._BATCHES_UNTIL_LARGER", 6)
    tower = Tower(room=3)
    encoder = tower_encoder(tower, max_batch_size=8)
    tower.sizes.clear()
    vectors = encoder.encode_images(images(8))
    assert all(isinstance(vector, np.ndarray) for vector in vectors)
    assert tower.sizes == [8, 4, 2, 2, 2, 2]
    tower.room = 5
    tower.sizes.clear()
    for _ in range(8):
        encoder.encode_images(images(8))
    # Two more batches of 2, then 4 at once, which fit; after six of those 8 are tried, which do not.
    assert tower.sizes == [2, 2, *[4] * 7, 8, *[4] * 6, 8, 4, 4]
    tower.room = 8
    for _ in range(8):
        encoder.encode_images(images(8))
    assert tower.sizes[-1] == 8


def test_what_a_pass_without_room_had_taken_is_free_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = Tower(room=3)
    encoder = tower_encoder(tower, max_batch_size=4)
    held: list[object] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: held.append(tower.activations()))
    encoder.encode_images(images(4))
    assert held == [None]


def test_a_compiled_tower_has_recorded_every_batch_size_before_it_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tower, asked = Tower(room=20), dict[str, object]()
    plain, compiled = (tower_encoder(tower, max_batch_size=20) for _ in range(2))
    monkeypatch.setattr(torch, "compile", lambda model, **how: asked.update(how) or model)
    compiled._compile(text_too=False)
    tower.sizes.clear()
    compiled.warm_up()
    # The first run of a size compiles, the second records its graph.
    assert {size for size in tower.sizes if tower.sizes.count(size) >= 2} == {1, 2, 4, 8, 16, 20}
    assert asked == {"mode": "reduce-overhead", "dynamic": False}
    tower.sizes.clear()
    padded = np.stack([np.asarray(vector) for vector in compiled.encode_images(images(35))])
    assert tower.sizes == [20, 16]
    assert np.array_equal(padded, np.stack([np.asarray(v) for v in plain.encode_images(images(35))]))
    # With less room it goes down to the next size that it has recorded: a batch of 10 would be padded to 20 again.
    tower.room = 10
    tower.sizes.clear()
    compiled.encode_images(images(35))
    assert tower.sizes == [20, 16, 8, 8, 8, 8, 4]


def test_no_room_for_one_image_is_the_models_fault() -> None:
    tower = Tower(room=4)
    encoder = tower_encoder(tower)
    tower.room = 0
    assert isinstance(encoder.encode_images(images(1))[0], ModelUnavailable)


def test_the_fake_finds_colors_by_their_names() -> None:
    fake = load_encoder(EncoderConfig(name="fake", family="fake"))
    colors = ["red", "blue", "white"]
    pixels = [fake.decode(file(Image.new("RGB", (50, 40), color))) for color in colors]
    seen = np.stack([np.asarray(vector) for vector in fake.encode_images(pixels)])
    read = np.stack([np.asarray(vector) for vector in fake.encode_texts([f"a {c} dress" for c in colors])])
    assert (read @ seen.T).argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "dinov2"}, "needs a checkpoint"),
        (
            {"family": "dinov2", "checkpoint": "a/b", "pretrained": "openai"},
            "pretrained is for family openclip",
        ),
        (
            {"family": "openclip", "checkpoint": "RN50", "pretrained": "openai", "revision": "main"},
            "revision is for hub ids",
        ),
        ({"family": "timm", "checkpoint": "resnet50", "precision": "int8"}, "int8 is for blip2"),
        ({"family": "openclip", "checkpoint": "a/b", "pooling": "mean"}, "takes no pooling"),
        ({"family": "blip2", "checkpoint": "a/b", "pooling": "cls"}, "takes one of mean"),
        ({"family": "blip2", "checkpoint": "a/b", "int8_threshold": 6.0}, "goes with precision int8"),
        ({"family": "fake", "name": "Nine-Lives"}, "pattern"),
        ({"family": "fake", "batch_size": 4}, "batch_size"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value),
)
def test_a_configuration_that_cannot_work_says_why(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**{"name": "tested", **settings})


def test_every_setting_is_described() -> None:
    for config in (EncoderConfig, ImageLimits):
        assert all(field.description for field in config.model_fields.values())


def test_a_gpu_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("this host has a GPU")
    with pytest.raises(ConfigError, match="shows no GPU"):
        load_encoder(EncoderConfig(name="tested", family="dinov2", checkpoint="a/b", device="cuda"))


class Ray:
    """Ray's module in a worker that reserved these GPUs."""

    def __init__(self, *reserved: str) -> None:
        self._reserved = list(reserved)

    def is_initialized(self) -> bool:
        return True

    def get_runtime_context(self) -> "Ray":
        return self

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        return {"GPU": self._reserved}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


def placed(device: str) -> str:
    config = EncoderConfig.model_validate(
        {"name": "tested", "family": "dinov2", "checkpoint": "a/b", "device": device}
    )
    return place(config).device.type


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("ray", "device", "expected"),
    [
        (None, "auto", "cuda"),
        (Ray("0"), "auto", "cuda"),
        (Ray(), "auto", "cpu"),
        (Ray(), "cuda", "cuda"),
        (Ray("0"), "cpu", "cpu"),
    ],
)
def test_auto_takes_no_gpu_that_another_actor_may_have_reserved(
    ray: Ray | None, device: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert placed(device) == expected


TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by "
    "downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("reason", "named"),
    [
        (TOO_OLD, ["CUDA 12.4", f"needs CUDA {torch.version.cuda}", "set device cpu"]),
        ("CUDA unknown error - this may be due to an incorrectly set up environment", ["unknown error"]),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_an_error_and_no_slow_model(
    device: str, reason: str, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> NoReturn:
        raise RuntimeError(reason)

    monkeypatch.setattr(torch.cuda, "init", fails)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError) as raised:
        placed(device)
    assert all(each in raised.value.message for each in named)


@pytest.mark.parametrize("reason", ["Found no NVIDIA driver on your system", "No CUDA GPUs are available"])
def test_auto_is_the_cpu_where_there_is_no_gpu(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> NoReturn:
        raise RuntimeError(reason)

    monkeypatch.setattr(torch.cuda, "init", fails)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert placed("auto") == "cpu"


def test_a_model_that_has_reserved_a_gpu_does_not_run_on_the_cpu_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> NoReturn:
        raise RuntimeError("Found no NVIDIA driver on your system")

    monkeypatch.setattr(torch.cuda, "init", fails)
    monkeypatch.setitem(sys.modules, "ray", Ray("0"))
    with pytest.raises(ConfigError, match="reserves a GPU by num_gpus, but PyTorch finds none"):
        placed("auto")
    assert placed("cpu") == "cpu"


@pytest.mark.parametrize(
    ("stated", "precision"),
    [
        ({"device": "auto"}, "fp32"),
        ({"device": "cpu"}, "fp32"),
        ({"device": "cuda"}, "bf16"),
        ({"device": "cuda", "precision": "fp32"}, "fp32"),
    ],
)
def test_a_named_gpu_computes_in_bf16_by_default(stated: dict[str, str], precision: str) -> None:
    config = {"name": "tested", "family": "dinov2", "checkpoint": "a/b", **stated}
    assert EncoderConfig.model_validate(config).precision == precision


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
    ],
)
def test_a_process_whose_device_failed_ends_in_ray_and_says_so_elsewhere(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        pass

    def end(status: int) -> NoReturn:
        assert status == 1
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    encoder = tower_encoder(Tower(room=4))

    def fails(_pixels: torch.Tensor) -> NoReturn:
        raise error

    encoder._image = fails
    first, second = encoder.encode_images(images(2))
    assert isinstance(first, ModelUnavailable)
    assert "failed: CUDA error" in first.message
    assert first is second
    encoder.ends_process = True
    with pytest.raises(Ended):
        encoder.encode_images(images(1))


def test_a_device_that_fails_in_the_first_pass_of_all_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_tower: Tower, _pixels: torch.Tensor) -> NoReturn:
        raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(Tower, "forward", fails)
    with pytest.raises(ModelUnavailable, match="no kernel image is available"):
        tower_encoder(Tower(room=4))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not match"),
        # Pinned memory that the host lacks, and what cuBLAS lacks on the device: the next batch may find some.
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_other_errors_of_a_model_end_no_process(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "_exit", lambda _: pytest.fail("the process has ended"))
    encoder = tower_encoder(Tower(room=4))
    encoder.ends_process = True

    def fails(_pixels: torch.Tensor) -> NoReturn:
        raise error

    encoder._image = fails
    (answer,) = encoder.encode_images(images(1))
    assert isinstance(answer, ModelUnavailable)


VECTOR = np.ones(2, np.float32)


class Model:
    """Fails on every batch with a poisoned input."""

    def __init__(self, poison: set[int], healthy: bool = True) -> None:
        self.poison, self.healthy, self.calls = poison, healthy, 0

    def embed(self, inputs: Sequence[int]) -> list[Vector | VitrineError]:
        self.calls += 1
        if self.poison & set(inputs):
            raise RuntimeError("kernel failed")
        return [VECTOR for _ in inputs]


def answers(model: Model, count: int) -> list[Vector | VitrineError]:
    return answer_each(model.embed, range(count), lambda: model.healthy)


def test_an_input_that_breaks_the_batch_fails_alone_as_a_bug_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Model(poison={5, 6})
    broken = [isinstance(answer, Internal) for answer in answers(model, 32)]
    assert [at for at, is_broken in enumerate(broken) if is_broken] == [5, 6]
    assert caplog.text.count("Traceback") == 2
    assert "RuntimeError: kernel failed" in caplog.text


def test_no_memory_is_not_blamed_on_the_inputs() -> None:
    class Full(Model):
        def embed(self, inputs: Sequence[int]) -> list[Vector | VitrineError]:
            raise MemoryError

    assert all(isinstance(answer, ModelUnavailable) for answer in answers(Full(set()), 4))


def test_a_whole_batch_runs_once() -> None:
    model = Model(poison=set())
    assert len(answers(model, 32)) == 32
    assert model.calls == 1


def test_one_poison_costs_a_few_more_runs_only() -> None:
    model = Model(poison={17})
    answers(model, 32)
    assert model.calls <= 2 * 5 + 1


def test_a_broken_device_is_not_blamed_on_the_inputs() -> None:
    model = Model(poison=set(range(8)), healthy=False)
    assert all(isinstance(answer, ModelUnavailable) for answer in answers(model, 8))
    assert model.calls == 1


@pytest.mark.parametrize("broken", ["forward", "forward_texts"])
def test_a_broken_tower_is_not_taken_for_a_broken_input(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("kernel failed")

    encoder = load_encoder(EncoderConfig(name="fake", family="fake"))
    monkeypatch.setattr(encoder, broken, fail)
    (of_text,) = encoder.encode_texts(["a dress"])
    assert isinstance(of_text, ModelUnavailable) is (broken == "forward_texts")


@pytest.fixture
def local() -> LocalEncoder:
    return LocalEncoder(load_encoder(EncoderConfig(name="fake", family="fake")), decode_threads=2)


def test_answers_come_in_the_order_of_the_inputs_and_a_broken_one_fails_alone(local: LocalEncoder) -> None:
    inputs: list[EncoderInput] = ["red", png("red"), b"no image", "blue", png("blue")]
    encoded = asyncio.run(local.encode(inputs))
    assert encoded.info == asyncio.run(local.describe())
    red_words, red, broken, blue_words, blue = encoded.vectors
    assert isinstance(broken, InvalidImage)
    for words, image in ((red_words, red), (blue_words, blue)):
        assert isinstance(words, np.ndarray)
        assert isinstance(image, np.ndarray)
        assert words @ image == pytest.approx(1.0)


def test_calls_at_once_do_not_mix(local: LocalEncoder) -> None:
    async def all_at_once() -> list[float]:
        calls = [local.encode([png(color), color]) for color in ("red", "lime", "blue", "white")]
        answers = await asyncio.gather(*calls)
        return [float(np.dot(*answer.vectors)) for answer in answers]  # type: ignore[arg-type]

    assert asyncio.run(all_at_once()) == pytest.approx([1.0] * 4)
