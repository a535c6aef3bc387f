"""Any timm backbone as a baseline (ResNet-50, 2048-d); images only."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from core.errors import ConfigError
from models.checkpoint import first_file, locate, version_files
from models.config import EncoderConfig
from models.preprocessing import Preprocessing
from models.torch_encoder import TorchEncoder, Towers, place

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_RESIZES = {"center": "cover", "squash": "squash", "border": "contain"}


def load(config: EncoderConfig) -> TorchEncoder:
    """Load the backbone without its classifier with timm's own loader."""
    placement = place(config)
    directory = locate(_hub_id(config.checkpoint), config.revision, *_WEIGHTS)
    weights = first_file(directory, _WEIGHTS)
    model = timm.create_model(f"local-dir:{directory}", pretrained=True, num_classes=0)
    # Convolutions run up to twice as fast in this layout; for transformers it makes no difference.
    model = model.to(device=placement.device, dtype=placement.dtype, memory_format=torch.channels_last)
    towers = Towers(
        image=model,
        text=None,
        preprocessing=preprocessing(timm.data.resolve_model_data_config(model)),
        files=version_files(directory, [weights]),
        architecture=str(model.pretrained_cfg["architecture"]),
        pooling="own",
    )
    return TorchEncoder(config, towers, placement)


def preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    """Read timm's data config as its `transforms_imagenet_eval` does."""
    height, width = settings["input_size"][-2:]
    size = (math.floor(height / settings["crop_pct"]), math.floor(width / settings["crop_pct"]))
    mode = _RESIZES[settings.get("crop_mode") or "center"]
    mean = settings["mean"]
    red, green, blue = (round(255 * value) for value in mean)
    return Preprocessing(
        resize="shortest" if mode == "cover" and size[0] == size[1] else mode,  # type: ignore[arg-type]
        size=size,
        crop=(height, width),
        interpolation=settings["interpolation"],
        mean=tuple(mean),
        std=tuple(settings["std"]),
        fill=(red, green, blue) if mode == "contain" else (0, 0, 0),
    )


def _hub_id(checkpoint: str) -> str:
    """Turn timm's own name of an architecture and tag into the hub id of its weights."""
    if "/" in checkpoint or Path(checkpoint).is_dir():
        return checkpoint
    if not timm.is_model(checkpoint.split(".")[0]):
        raise ConfigError(f"{checkpoint} is neither a directory, a hub id nor an architecture of timm")
    known = timm.models.get_pretrained_cfg(checkpoint)
    if known is None or not known.hf_hub_id:
        raise ConfigError(
            f"timm has no weights for {checkpoint} on the hub; name a tag such as resnet50.a1_in1k"
        )
    return f"timm/{checkpoint}" if known.hf_hub_id == "timm/" else str(known.hf_hub_id)
