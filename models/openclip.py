"""OpenCLIP: any architecture and tag, hub id or local directory; images and texts in one space."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import constants

from core.errors import ConfigError, ModelUnavailable
from models.checkpoint import first_file, locate, read_config, version_files
from models.config import EncoderConfig
from models.device import place
from models.preprocessing import Preprocessing
from models.torch_encoder import TorchEncoder, Towers

_PURE = {"fp32": "fp32", "bf16": "pure_bf16", "fp16": "pure_fp16"}
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_RESIZES = {"squash": "squash", "longest": "contain", "shortest": "shortest"}


def load(config: EncoderConfig) -> TorchEncoder:
    """Load both towers with open_clip's own loaders."""
    placement = place(config)
    name, files = _resolve_tag(config) if config.pretrained else _resolve_directory(config)
    model = open_clip.create_model(
        name,
        pretrained=config.pretrained,
        precision=_PURE[config.precision],
        device=placement.device,
        require_pretrained=True,
    ).eval()
    tokenizer = open_clip.get_tokenizer(name)
    towers = Towers(
        image=model.encode_image,
        text=model.encode_text,
        tokens=lambda texts: {
            "text": tokenizer([_within_reach(text, tokenizer.context_length) for text in texts])
        },
        preprocessing=preprocessing(model.visual.preprocess_cfg),
        files=files,
        architecture="local" if not config.pretrained else config.checkpoint,
        pooling="own",
        has_one_length=True,
        text_tokens=_token_counter(copy.deepcopy(tokenizer)),
        context_length=tokenizer.context_length,
    )
    return TorchEncoder(config, towers, placement)


def preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    """Read open_clip's preprocess_cfg as its `image_transform` does for inference."""
    size = _pair(settings["size"])
    mode = settings["resize_mode"] or "shortest"
    fill = int(settings["fill_color"] or 0)
    return Preprocessing(
        # open_clip keeps the ratio differently when the target is not square.
        resize="cover" if mode == "shortest" and size[0] != size[1] else _RESIZES[mode],  # type: ignore[arg-type]
        size=size,
        crop=size,
        interpolation=settings["interpolation"] or "bicubic",
        mean=_rgb(settings["mean"]),
        std=_rgb(settings["std"]),
        fill=(fill, fill, fill) if mode == "longest" else (0, 0, 0),
    )


def _token_counter(tokenizer: Any) -> Callable[[str], int]:
    """Count with a tokenizer of its own: one of transformers may not be used while another thread uses it."""
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        start_and_end = 2
        return lambda text: (
            len(tokenizer.encode(_within_reach(text, tokenizer.context_length))) + start_and_end
        )
    return lambda text: len(tokenizer.tokenizer(tokenizer.clean_fn(text), verbose=False).input_ids)


_LONGEST_TOKEN = 40
"""Most characters of a token: CLIP's longest has 32 bytes, and an HTML entity, which becomes one, 37 characters."""


def _within_reach(text: str, context_length: int) -> str:
    """Cut a text far behind its last token that is read: a word costs CLIP's tokenizer the square of its length."""
    reach = context_length * _LONGEST_TOKEN
    if len(text) <= reach:
        return text
    found = re.match(rf"(?:\s*\S){{0,{reach}}}", text)
    return found.group() if found else text


def _resolve_directory(config: EncoderConfig) -> tuple[str, tuple[Path, ...]]:
    if config.checkpoint in open_clip.list_models():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(config.checkpoint)) or "none known"
        raise ConfigError(f"openclip architecture {config.checkpoint} needs `pretrained`, one of: {tags}")
    directory = locate(config.checkpoint, config.revision, *_WEIGHTS)
    if "model_cfg" not in read_config(directory, "open_clip_config.json"):
        raise ConfigError(f"{directory}/open_clip_config.json has no model_cfg")
    return f"local-dir:{directory}", version_files(directory, [first_file(directory, _WEIGHTS)])


def _resolve_tag(config: EncoderConfig) -> tuple[str, tuple[Path, ...]]:
    if config.checkpoint not in open_clip.list_models():
        raise ConfigError(
            f"open_clip knows no architecture {config.checkpoint}; `pretrained` goes with an architecture"
        )
    tag = open_clip.get_pretrained_cfg(config.checkpoint, config.pretrained)
    if not tag:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(config.checkpoint))
        raise ConfigError(f"{config.checkpoint} has no weights tagged {config.pretrained}; known: {tags}")
    trained_quick = bool(tag.get("quick_gelu"))
    if trained_quick != bool(open_clip.get_model_config(config.checkpoint).get("quick_gelu")):
        right = (
            f"{config.checkpoint}-quickgelu"
            if trained_quick
            else config.checkpoint.removesuffix("-quickgelu")
        )
        raise ConfigError(
            f"the weights {config.pretrained} were trained with another activation: use {right}"
        )
    try:
        return config.checkpoint, (Path(open_clip.download_pretrained(tag)),)
    except OSError as error:
        # open_clip raises FileNotFoundError after all attempts, and urllib's errors are OSErrors too.
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise ModelUnavailable(
            f"the weights {config.pretrained} of {config.checkpoint} are not on this machine, and {why}"
        ) from error


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _rgb(value: float | Sequence[float]) -> tuple[float, float, float]:
    if isinstance(value, int | float):
        return (value, value, value)
    red, green, blue = value
    return (red, green, blue)
