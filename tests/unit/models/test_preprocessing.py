"""Each family's images reach the model as the library's own transform would make them.

Pillow and torchvision round differently, so a pixel may be off by a level or two of 255.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from transformers import BitImageProcessor, BlipImageProcessor

from core.errors import ConfigError
from models import huggingface, openclip
from models import timm as timm_family
from models.preprocessing import Preprocessing
from tests.support.image_files import ODD_SIZES, smooth

Transform = Callable[[Image.Image], torch.Tensor]


LEVELS = 2.01
COSINE = 0.9998


def images(count: int = 50) -> list[Image.Image]:
    """The odd sizes, and random ones."""
    sizes = np.random.default_rng(5).integers(20, 500, (count - len(ODD_SIZES), 2)).tolist()
    return [smooth(width, height, seed) for seed, (width, height) in enumerate([*ODD_SIZES, *sizes])]


def assert_same(ours: Preprocessing, theirs: Transform, images: list[Image.Image]) -> None:
    levels, cosines = [], []
    for image in images:
        a, b = values(ours, image), theirs(image)
        assert a.shape == b.shape
        step = ours.scale / torch.tensor(ours.std).view(3, 1, 1)
        levels.append(((a - b).abs() / step).max().item())
        cosines.append(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item())
    print(f"at most {max(levels):.2f} levels apart, least cosine {min(cosines):.6f}")
    assert max(levels) <= LEVELS
    assert min(cosines) >= COSINE


def values(ours: Preprocessing, image: Image.Image) -> torch.Tensor:
    return ours.normalize(torch.from_numpy(ours.apply(image))[None], torch.float32)[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 224},
        {"size": 97, "resize_mode": "squash", "interpolation": "bilinear"},
        {"size": 224, "resize_mode": "longest", "fill_color": 127},
        {"size": (160, 224)},
        {"size": (64, 48), "resize_mode": "squash", "mean": (0.5,) * 3, "std": (0.5,) * 3},
    ],
    ids=str,
)
def test_openclip(settings: dict[str, Any]) -> None:
    config = PreprocessCfg(**settings)
    ours = openclip.preprocessing(vars(config))
    assert_same(ours, image_transform_v2(config, is_train=False), images(50 if len(settings) == 1 else 16))


@pytest.mark.parametrize(
    "processor",
    [
        BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}),
        BitImageProcessor(size={"shortest_edge": 37}, crop_size={"height": 28, "width": 28}, resample=2),
        BitImageProcessor(
            size={"shortest_edge": 50}, crop_size={"height": 64, "width": 64}, do_normalize=False
        ),
        BlipImageProcessor(size={"height": 224, "width": 224}),
    ],
    ids=["dinov2", "odd", "padded", "blip2"],
)
def test_transformers(processor: Any) -> None:
    def theirs(image: Image.Image) -> torch.Tensor:
        pixels: torch.Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
        return pixels

    assert_same(huggingface.preprocessing(processor), theirs, images(16))


@pytest.mark.parametrize(
    "settings",
    [
        {"crop_pct": 0.875, "interpolation": "bicubic"},
        {"crop_pct": 0.95, "interpolation": "bilinear"},
        {"crop_pct": 0.9, "interpolation": "bicubic", "crop_mode": "squash"},
        {"crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "border"},
        {"crop_pct": 0.9, "interpolation": "bicubic", "input_size": (3, 96, 128)},
    ],
    ids=str,
)
def test_timm(settings: dict[str, Any]) -> None:
    data = timm.data.resolve_data_config({}, pretrained_cfg={"input_size": (3, 128, 128), **settings})
    theirs = timm.data.create_transform(**data, is_training=False)
    assert_same(timm_family.preprocessing(data), theirs, images(16))


def test_a_panorama_is_not_blown_up() -> None:
    config = PreprocessCfg(size=224)
    ours = openclip.preprocessing(vars(config))
    theirs = image_transform_v2(config, is_train=False)
    assert_same(ours, theirs, [smooth(3000, 9), smooth(7, 2500)])
    assert ours.apply(smooth(20_000, 1)).shape == (3, 224, 224)


def test_a_processor_whose_images_differ_in_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="differ in size"):
        huggingface.preprocessing(BitImageProcessor(size={"shortest_edge": 30}, do_center_crop=False))
