"""A BLIP-2 captioning checkpoint without its language model: 2 GB instead of 15 or more."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import Blip2Config, Blip2PreTrainedModel, Blip2QFormerModel, Blip2VisionModel

from models.checkpoint import SETTINGS, download, locate, weight_index, weight_map
from models.hf_loading import load_model
from models.placement import Placement

_LANGUAGE = ("language_model.", "language_projection.")


class Blip2WithoutLanguage(Blip2PreTrainedModel):  # type: ignore[misc]
    """Vision tower, queries and Q-Former, under the names that captioning checkpoints use."""

    config_class = Blip2Config
    _keep_in_fp32_modules = ("query_tokens", "qformer")
    _keys_to_ignore_on_load_unexpected = (r"^language_model\.", r"^language_projection\.")

    def __init__(self, config: Blip2Config) -> None:
        super().__init__(config)
        queries = torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size)
        self.vision_model = Blip2VisionModel._from_config(config.vision_config)
        self.query_tokens = nn.Parameter(queries)
        self.qformer = Blip2QFormerModel._from_config(config.qformer_config)
        self.post_init()


def is_seeing_key(key: str) -> bool:
    """Whether a tensor of the checkpoint belongs to anything but its language model."""
    return not key.startswith(_LANGUAGE)


def locate_seeing(checkpoint: str, revision: str | None) -> Path:
    """Find the checkpoint's directory; from the hub only the shards that embeddings need are downloaded.

    Raises:
        ConfigError: neither a directory nor a hub id, or the hub refuses it.
        ModelUnavailable: the hub cannot be reached and nothing is cached.
    """
    directory = locate(checkpoint, revision, "config.json")
    index = weight_index(directory)
    if Path(checkpoint).expanduser().is_dir():
        return directory
    if index is None:
        return locate(checkpoint, revision, "model.safetensors", "pytorch_model.bin")
    shards = {shard for key, shard in weight_map(index).items() if is_seeing_key(key)}
    return download(checkpoint, revision, *SETTINGS, *shards)


def load_seeing_model(directory: Path, placement: Placement) -> Any:
    """Load `Blip2WithoutLanguage`, opening only the shards that hold a part of it."""
    index = weight_index(directory)
    if index is None:
        return load_model(Blip2WithoutLanguage, directory, placement)
    wanted = {key: shard for key, shard in weight_map(index).items() if is_seeing_key(key)}
    # transformers insists on every shard that the index names: give it an index that names fewer.
    with TemporaryDirectory(prefix="blip2-") as trimmed:
        view = Path(trimmed)
        (view / index.name).write_text(json.dumps({"metadata": {}, "weight_map": wanted}), encoding="utf-8")
        for name in {"config.json", *wanted.values()}:
            (view / name).symlink_to((directory / name).resolve())
        return load_model(Blip2WithoutLanguage, view, placement)
