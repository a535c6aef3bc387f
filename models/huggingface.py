"""Load models and image processors of transformers."""

from collections.abc import Mapping, Sequence
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, BitsAndBytesConfig
from transformers.utils import logging

from core.errors import ConfigError
from models.device import Placement
from models.preprocessing import Preprocessing, Rgb, Size

_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_INTERPOLATIONS = ("bilinear", "bicubic")
_UNCROPPED = 384
"""Least size that ConvNeXt's processor does not crop to."""
_MASK = "attention_mask"
_NOISE = (300, 411, 3)
"""Height, width and channels of the image on which preprocessing is compared; a step that is left out shows."""


def load_preprocessing(directory: Path) -> Preprocessing:
    """Read a checkpoint's preprocessing, and compare it with the library's own on an image.

    Raises:
        ConfigError: there is none, or it has steps that `Preprocessing` does not take.
    """
    if not any((directory / name).is_file() for name in _PROCESSOR_FILES):
        raise ConfigError(f"{directory} holds no {_PROCESSOR_FILES[0]}, so how to resize images is unknown")
    processor = AutoImageProcessor.from_pretrained(directory, trust_remote_code=False)
    steps = preprocessing(processor)
    if not _equals(steps, processor):
        raise ConfigError(f"{type(processor).__name__} has steps that are not known here")
    return steps


def preprocessing(processor: Any) -> Preprocessing:
    """Read an image processor that resizes, crops, rescales and normalizes.

    Raises:
        ConfigError: its steps give images of different sizes, or are not known here.
    """
    name = type(processor).__name__
    if hasattr(processor, "max_num_patches"):
        raise ConfigError(
            f"{name} (NaFlex) keeps each image's own ratio, so images differ in size; "
            "take a checkpoint of a fixed size, such as google/siglip2-base-patch16-224"
        )
    resize, size, crop = _geometry(processor)
    interpolation = Image.Resampling(int(processor.resample)).name.lower()
    if interpolation not in _INTERPOLATIONS:
        raise ConfigError(f"{name} resizes by {interpolation}; {' and '.join(_INTERPOLATIONS)} work")
    mean, std = _normalization(processor)
    return Preprocessing(
        resize=resize,
        size=size,
        crop=crop,
        interpolation=interpolation,
        mean=mean,
        std=std,
        scale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
        crop_rounds=False,
    )


def _geometry(processor: Any) -> tuple[Literal["squash", "shortest"], Size, Size]:
    """Return how an image is resized, to which size, and what is cut from it."""
    size = processor.size if processor.do_resize else {}
    crop = _pair(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
    if size.get("height") and size.get("width"):
        return "squash", _pair(size), crop or _pair(size)
    edge = size.get("shortest_edge")
    if not edge or size.get("longest_edge"):
        raise ConfigError(
            f"{type(processor).__name__} resizes to {dict(size)}; shortest_edge, or height and width, work"
        )
    if (share := getattr(processor, "crop_pct", None)) is not None:
        # ConvNeXt: a small image is resized to more than the crop, and a large one is not cropped.
        larger = int(edge / share)
        if edge >= _UNCROPPED:
            return "squash", (edge, edge), (edge, edge)
        return "shortest", (larger, larger), (edge, edge)
    if crop is None:
        raise ConfigError(f"{type(processor).__name__} neither crops nor squashes, so images differ in size")
    return "shortest", (edge, edge), crop


def _normalization(processor: Any) -> tuple[Rgb, Rgb]:
    """Return what is subtracted from the rescaled values, and what they are divided by."""
    normalizes = bool(processor.do_normalize)
    mean = _rgb(processor.image_mean) if normalizes else (0.0, 0.0, 0.0)
    std = _rgb(processor.image_std) if normalizes else (1.0, 1.0, 1.0)
    # EfficientNet: values may be moved by 1 first, and divided once more at the end.
    if getattr(processor, "rescale_offset", False):
        mean = (mean[0] + 1, mean[1] + 1, mean[2] + 1)
    if getattr(processor, "include_top", False):
        red, green, blue = _rgb(processor.image_std)
        std = (std[0] * red, std[1] * green, std[2] * blue)
    return mean, std


def _equals(steps: Preprocessing, processor: Any) -> bool:
    """Return whether the steps make of noise what the library makes of it, but for rounding."""
    noise = np.random.default_rng(0).integers(0, 256, _NOISE, dtype=np.uint8)
    theirs = processor(images=Image.fromarray(noise), return_tensors="pt").get("pixel_values")
    ours = torch.from_numpy(steps.apply(noise))[None]
    if theirs is None or theirs.shape != ours.shape:
        return False
    # In the values of pixels, so that the difference is one of levels.
    off = (steps.normalize(ours, torch.float32) - theirs) * torch.tensor(steps.std).view(1, 3, 1, 1)
    return float(off.abs().mean()) <= steps.scale


def _pair(size: Any) -> Size:
    return (int(size["height"]), int(size["width"]))


def _rgb(values: Any) -> Rgb:
    red, green, blue = (float(value) for value in values)
    return (red, green, blue)


def tokens_of(tokenizer: Any, texts: Sequence[str], padding: str, longest: int) -> Mapping[str, Tensor]:
    """Read texts as the arguments of a text tower, each cut at `longest` tokens.

    The mask is left out where no text is padded to the longest, for transformers would read it from the device: the
    next batch could not begin meanwhile. With padding to `longest` it stays, so that a compiled tower always has it.
    """
    read = dict(
        tokenizer(list(texts), padding=padding, truncation=True, max_length=longest, return_tensors="pt")
    )
    if padding == "longest" and _MASK in read and bool(read[_MASK].all()):
        del read[_MASK]
    return read


def load_model(
    model_class: Any,
    directory: Path,
    placement: Placement,
    in_full: tuple[str, ...] = (),
    optional: str | None = None,
) -> Any:
    """Load a model onto its device in evaluation mode; modules named in `in_full` never become 8 bit.

    The module named `optional` becomes None where the checkpoint has none of its tensors.

    Raises:
        ConfigError: the checkpoint lacks tensors of the model.
    """
    logging.disable_progress_bar()
    settings: dict[str, Any] = {"dtype": placement.dtype, "output_loading_info": True}
    if placement.eight_bit:
        # It warns at every matrix product that it casts activations, which is intended here.
        getLogger("bitsandbytes").setLevel(ERROR)
        settings["device_map"] = {"": placement.device}
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=placement.int8_threshold,
            llm_int8_skip_modules=list(in_full),
        )
    model, report = model_class.from_pretrained(directory, **settings)
    missing = sorted(report["missing_keys"])
    if missing and optional and all(key.startswith(f"{optional}.") for key in missing):
        setattr(model, optional, None)
    elif missing:
        raise ConfigError(
            f"{directory} lacks {len(missing)} tensors of {type(model).__name__}, such as {missing[0]}"
        )
    return model.eval() if placement.eight_bit else model.to(placement.device).eval()
