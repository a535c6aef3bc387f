"""Load models and image processors of transformers."""

from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor, BitsAndBytesConfig
from transformers.utils import logging

from core.errors import ConfigError
from models.preprocessing import Preprocessing, Rgb, Size
from models.torch_encoder import Placement


def load_preprocessing(directory: Path) -> Preprocessing:
    """Read a checkpoint's preprocessing; raises as `preprocessing`."""
    return preprocessing(AutoImageProcessor.from_pretrained(directory))


def preprocessing(processor: Any) -> Preprocessing:
    """Read an image processor that resizes, crops, rescales and normalizes.

    Raises:
        ConfigError: its steps give images of different sizes.
    """
    size, crop = _resize(processor), _crop(processor)
    if crop is None and size[0] == "squash":
        crop = size[1]
    if crop is None:
        raise ConfigError(f"{type(processor).__name__} neither crops nor squashes, so images differ in size")
    normalizes = bool(processor.do_normalize)
    return Preprocessing(
        resize=size[0],  # type: ignore[arg-type]
        size=size[1],
        crop=crop,
        interpolation=Image.Resampling(int(processor.resample)).name.lower(),
        mean=_rgb(processor.image_mean) if normalizes else (0.0, 0.0, 0.0),
        std=_rgb(processor.image_std) if normalizes else (1.0, 1.0, 1.0),
        scale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
        crop_rounds=False,
    )


def _resize(processor: Any) -> tuple[str, Size]:
    size = processor.size if processor.do_resize else {}
    if size.get("height") and size.get("width"):
        return "squash", (size["height"], size["width"])
    if size.get("shortest_edge") and not size.get("longest_edge"):
        return "shortest", (size["shortest_edge"], size["shortest_edge"])
    raise ConfigError(
        f"{type(processor).__name__} resizes to {dict(size)}; shortest_edge, or height and width, work"
    )


def _crop(processor: Any) -> Size | None:
    if not getattr(processor, "do_center_crop", False):
        return None
    return (processor.crop_size["height"], processor.crop_size["width"])


def _rgb(values: Any) -> Rgb:
    red, green, blue = (float(value) for value in values)
    return (red, green, blue)


def load_model(model_class: Any, directory: Path, placement: Placement, in_full: tuple[str, ...] = ()) -> Any:
    """Load a model onto its device in evaluation mode; modules named in `in_full` never become 8 bit.

    Raises:
        ConfigError: the checkpoint lacks tensors of the model.
    """
    logging.disable_progress_bar()
    settings: dict[str, Any] = {"dtype": placement.dtype, "output_loading_info": True}
    if placement.eight_bit:
        settings["device_map"] = {"": placement.device}
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=placement.int8_threshold,
            llm_int8_skip_modules=list(in_full),
        )
    model, report = model_class.from_pretrained(directory, **settings)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ConfigError(
            f"{directory} lacks {len(missing)} tensors of {type(model).__name__}, such as {missing[0]}"
        )
    return model.eval() if placement.eight_bit else model.to(placement.device).eval()
