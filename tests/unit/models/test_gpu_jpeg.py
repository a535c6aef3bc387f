"""JPEG files that a GPU decodes: which ones they are, what becomes of the others, and vectors that hardly move.

No GPU takes part: its decoder is torchvision's for the CPU, and all that follows is what runs on a GPU.
"""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageCms
from pydantic import ValidationError
from torch import Tensor

from core.errors import ConfigError
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels, load_encoder
from models.gpu_jpeg import EXTRA, GpuJpegs, torchcodec_on
from models.images import ImageLimits, baseline_pixels, is_for_gpu
from models.preprocessing import read_jpeg
from models.torch_encoder import TorchEncoder
from tests.support.checkpoints import DEMO
from tests.support.icc_profiles import of_primaries
from tests.support.image_files import file, photograph, rotated_jpeg, smooth

LIMITS = ImageLimits()
CPU = torch.device("cpu")
SWAPPED = of_primaries(2.2, (0.292, 0.6922, 0.0419), (0.5151, 0.2412, -0.0011), (0.1571, 0.0666, 0.7841))


def jpeg(size: tuple[int, int] = (90, 60), **options: Any) -> bytes:
    return file(smooth(*size), "JPEG", **options)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(),
        jpeg(subsampling="4:4:4", quality=97),
        jpeg(optimize=True, restart_marker_rows=1),
        jpeg(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
        jpeg(comment=b"from a shop"),
        rotated_jpeg(smooth(90, 60), 1),
        jpeg() + b"bytes after its end",
        jpeg()[:2] + b"\xff" + jpeg()[2:],
    ],
    ids=["usual", "fine", "restarts", "sRGB", "comment", "upright", "tail", "fill byte"],
)
def test_upright_baseline_files_are_for_the_gpu(data: bytes) -> None:
    assert is_for_gpu(data, LIMITS)
    assert baseline_pixels(data) == 90 * 60


FRAME = jpeg()[jpeg().index(b"\xff\xc0") :][:19]
"""The section that begins the frame of `jpeg()`."""


@pytest.mark.parametrize(
    "data",
    [
        jpeg(progressive=True),
        jpeg(keep_rgb=True, subsampling="4:4:4"),
        jpeg(icc_profile=SWAPPED),
        rotated_jpeg(smooth(90, 60), 6),
        file(smooth(90, 60).convert("L"), "JPEG"),
        file(smooth(90, 60).convert("CMYK"), "JPEG"),
        file(smooth(90, 60), "MPO", save_all=True, append_images=[smooth(90, 60)]),
        file(smooth(90, 60), "PNG"),
        jpeg()[:-2],
        jpeg()[:300],
        b"",
        b"\xff\xd8",
        jpeg().replace(b"\xff\xc0", b"\xff\xc1"),
        jpeg().replace(FRAME, b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff" + FRAME[9:] + FRAME),
        jpeg().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
    ],
    ids=[
        "progressive", "RGB", "other profile", "turned", "gray", "CMYK", "MPO", "PNG", "no end marker", "cut off",
        "nothing", "no section", "extended", "two frames", "12 bits",
    ],
)  # fmt: skip
def test_all_other_files_are_for_the_cpu(data: bytes) -> None:
    assert not is_for_gpu(data, LIMITS)


def test_files_beyond_the_limits_are_for_the_cpu_which_refuses_them() -> None:
    assert not is_for_gpu(jpeg(), ImageLimits(max_pixels=90 * 60 - 1))
    assert not is_for_gpu(jpeg(), ImageLimits(max_bytes=len(jpeg()) - 1))


@pytest.mark.parametrize("seed", range(20))
def test_damaged_headers_raise_nothing(seed: int) -> None:
    random, data = np.random.default_rng(seed), bytearray(jpeg())
    for at in random.integers(0, 640, 4):
        data[at] = random.integers(256)
    assert is_for_gpu(bytes(data), LIMITS) in (True, False)
    assert not is_for_gpu(random.bytes(300), LIMITS)


@dataclass
class OnCpu:
    """Decodes as a GPU would, and remembers what came together; refuses files that end with `refused`."""

    calls: list[list[bytes]] = field(default_factory=list)

    def __call__(self, files: Sequence[bytes]) -> list[Tensor | None]:
        self.calls.append(list(files))
        return [None if each.endswith(b"refused") else self.pixels(each) for each in files]

    @staticmethod
    def pixels(data: bytes) -> Tensor:
        return torch.from_numpy(read_jpeg(data)).permute(2, 0, 1)


SIZES = [(800, 600), (1201, 901), (900, 1600), (2000, 1500), (571, 385), (224, 224), (150, 100)]


def demo(family: str) -> TorchEncoder:
    config = EncoderConfig(name="tested", family=family, checkpoint=str(DEMO / family), device="cpu")  # type: ignore[arg-type]
    encoder = load_encoder(config)
    assert isinstance(encoder, TorchEncoder)
    return encoder


@pytest.mark.parametrize("family", ["openclip", "dinov2", "timm"])
def test_the_way_over_the_gpu_hardly_moves_a_vector(family: str) -> None:
    encoder = demo(family)
    files = [file(photograph(*size, seed), "JPEG", quality=90) for seed, size in enumerate(SIZES)]
    on_gpu = GpuJpegs(OnCpu(), encoder._preprocessing.apply_on_device, LIMITS, CPU)(files)
    cosines = []
    for data, pixels in zip(files, on_gpu, strict=True):
        assert pixels is not None
        usual = encoder.decode(data)
        assert (pixels.dtype, pixels.shape) == (usual.dtype, usual.shape)
        there, here = encoder.encode_images([pixels, usual])
        cosines.append(float(np.asarray(there) @ np.asarray(here)))
    print(f"{family}: least cosine to the pixels of the CPU {min(cosines):.6f}")
    assert min(cosines) >= 0.999


def test_without_reduction_levels_differ_by_one_at_most() -> None:
    encoder, data = demo("openclip"), jpeg((333, 500), quality=95)
    (pixels,) = GpuJpegs(OnCpu(), encoder._preprocessing.apply_on_device, LIMITS, CPU)([data])
    assert pixels is not None
    assert np.abs(pixels.astype(int) - encoder.decode(data)).max() <= 1


def test_panoramas_and_what_the_library_refuses_are_left_to_the_cpu() -> None:
    encoder = demo("openclip")
    files = [jpeg(), jpeg() + b"refused", jpeg((8, 4000)), jpeg((60, 90))]
    answers = GpuJpegs(OnCpu(), encoder._preprocessing.apply_on_device, LIMITS, CPU)(files)
    assert [each is None for each in answers] == [False, True, True, False]


def test_the_device_holds_no_more_pixels_at_once_than_the_limit_says() -> None:
    decode, files = OnCpu(), [jpeg((90, 60 + n)) for n in range(5)]
    limits = ImageLimits(max_pixels_in_flight=2 * 90 * 64)
    answers = GpuJpegs(decode, lambda pixels: pixels, limits, CPU)(files)
    assert decode.calls == [files[:2], files[2:4], files[4:]]
    assert [each.shape for each in answers if each is not None] == [(3, 60 + n, 90) for n in range(5)]


def test_two_threads_do_not_decode_at_once() -> None:
    files, others = [jpeg((90, 60))], [jpeg((60, 90))]
    calls: list[Future[list[Pixels | None]]] = []
    with ThreadPoolExecutor(1) as other:

        def decode(some: Sequence[bytes]) -> list[Tensor | None]:
            if some == files:
                calls.append(other.submit(jpegs, others))
                # It would end within milliseconds.
                assert not wait(calls, timeout=0.3).done
            return list(map(OnCpu.pixels, some))

        jpegs = GpuJpegs(decode, lambda pixels: pixels, LIMITS, CPU)
        for (found,), shape in ((jpegs(files), (3, 60, 90)), (calls[0].result(30), (3, 90, 60))):
            assert found is not None
            assert found.shape == shape


def test_a_device_that_fails_leaves_the_files_to_the_cpu() -> None:
    def fail(_files: Sequence[bytes]) -> list[Tensor | None]:
        raise torch.OutOfMemoryError("no memory")

    assert GpuJpegs(fail, lambda pixels: pixels, LIMITS, CPU)([jpeg(), jpeg()]) == [None, None]


def with_torchcodec(monkeypatch: pytest.MonkeyPatch, decode_jpeg: Callable[..., list[Tensor]]) -> None:
    module = ModuleType("torchcodec.decoders")
    module.decode_jpeg = decode_jpeg  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)


def test_a_lost_device_is_asked_once_and_no_file_is_blamed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def decode_jpeg(source: list[bytes], **_: object) -> list[Tensor]:
        calls.append(len(source))
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with_torchcodec(monkeypatch, decode_jpeg)
    assert GpuJpegs(torchcodec_on(CPU), lambda pixels: pixels, LIMITS, CPU)([jpeg()] * 3) == [None] * 3
    assert calls == [3]
    assert caplog.messages == [
        "3 JPEG files could not be decoded on the GPU: CUDA error: an illegal memory access was encountered"
    ]


def test_torchcodec_gets_all_files_at_once_and_each_alone_where_it_refuses_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[list[bytes]] = []

    def decode_jpeg(source: list[bytes], *, mode: str, device: torch.device) -> list[Tensor]:
        assert (mode, device) == ("RGB", CPU)
        calls.append(source)
        if b"broken" in source:
            raise RuntimeError("nvJPEG failed")
        return [torch.full((3, 1, 1), len(each), dtype=torch.uint8) for each in source]

    with_torchcodec(monkeypatch, decode_jpeg)
    decode = torchcodec_on(CPU)
    levels = [None if each is None else int(each[0, 0, 0]) for each in decode([b"a", b"broken", b"ccc"])]
    assert levels == [1, None, 3]
    assert calls == [[b"a", b"broken", b"ccc"], [b"a"], [b"broken"], [b"ccc"]]


def test_where_the_library_is_missing_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ConfigError, match=rf"torchcodec.*\[server,{EXTRA}\]"):
        torchcodec_on(CPU)


def load(**settings: Any) -> Encoder:
    return load_encoder(
        EncoderConfig(name="tested", family="dinov2", checkpoint=str(DEMO / "dinov2"), **settings)
    )


def test_without_a_gpu_the_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="decode_on_gpu needs a GPU"):
        load(device="cpu", decode_on_gpu=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_where_no_gpu_is_found_the_encoder_does_not_start() -> None:
    with pytest.raises(ConfigError, match="decode_on_gpu needs a GPU"):
        load(decode_on_gpu=True)


def test_a_version_that_decodes_there_has_a_fingerprint_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.torch_encoder.gpu_jpegs", lambda *_: None)
    assert load(decode_on_gpu=True).info.fingerprint != load().info.fingerprint
