"""The towers that all servers load: random weights, once in open_clip's format and once in that of transformers."""

import gzip
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.peers.images import as_image

_ONE_LAYER: Mapping[str, Any] = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 128, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
TOWERS = ("one_layer", "vit_b_32")
"""A tower that takes less than a millisecond, so that all around it counts, and one of a usual size."""
_HEAD_WIDTH = 64
_MEAN, _STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


def model_config(tower: str) -> dict[str, Any]:
    """Return the architecture as open_clip describes it."""
    return dict(_ONE_LAYER) if tower == "one_layer" else dict(open_clip.get_model_config("ViT-B-32"))


def write_tower(directory: Path, config: Mapping[str, Any]) -> Path:
    """Write an architecture with random weights to a directory that open_clip and transformers load."""
    torch.manual_seed(0)
    directory.mkdir(parents=True)
    model = open_clip.CLIP(**config)
    preprocessing = {"mean": _MEAN, "std": _STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    _write(directory / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocessing})
    save_file(model.state_dict(), directory / "open_clip_model.safetensors")
    _write(directory / "config.json", transformers_config(config))
    weights = transformers_weights(model.state_dict())
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    size = config["vision_cfg"]["image_size"]
    _write(
        directory / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "CLIPProcessor",
            "size": {"shortest_edge": size},
            "crop_size": {"height": size, "width": size},
            "image_mean": _MEAN,
            "image_std": _STD,
        },
    )
    _write_tokenizer(directory)
    return directory


def transformers_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate open_clip's description of an architecture to that of transformers."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config["embed_dim"],
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            **_sizes(vision, vision["width"] // _HEAD_WIDTH),
        },
        "text_config": {
            "model_type": "clip_text_model",
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            # The largest id, at which transformers pools like open_clip.
            "eos_token_id": text["vocab_size"] - 1,
            "bos_token_id": text["vocab_size"] - 2,
            **_sizes(text, text["heads"]),
        },
    }


def _sizes(tower: Mapping[str, Any], heads: int) -> dict[str, Any]:
    return {
        "hidden_size": tower["width"],
        "intermediate_size": tower["width"] * 4,
        "num_hidden_layers": tower["layers"],
        "num_attention_heads": heads,
        "hidden_act": "gelu",
    }


_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "logit_scale": "logit_scale",
}
_PROJECTIONS = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_PREFIXES = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "ln_final.": "text_model.final_layer_norm.",
}
_PARTS = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.": ".self_attn.",
}


def transformers_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the weights of open_clip's CLIP to those of `CLIPModel`."""
    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in _NAMES:
            weights[_NAMES[key]] = value
        elif key in _PROJECTIONS:
            weights[_PROJECTIONS[key]] = value.T
        elif "in_proj_" in key:
            layer, kind = _renamed(key).split("in_proj_")
            for name, part in zip("qkv", value.reshape(3, -1, *value.shape[1:]).unbind(), strict=True):
                weights[f"{layer}{name}_proj.{kind}"] = part
        else:
            weights[_renamed(key)] = value
    return {name: value.clone().contiguous() for name, value in weights.items()}


def _renamed(key: str) -> str:
    prefix = next(each for each in _PREFIXES if key.startswith(each))
    name = _PREFIXES[prefix] + key.removeprefix(prefix)
    for ours, theirs in _PARTS.items():
        name = name.replace(ours, theirs)
    return name


def _write_tokenizer(directory: Path) -> None:
    """Write open_clip's vocabulary as transformers reads it."""
    packed = files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    tokenizer = open_clip.SimpleTokenizer()
    merges = gzip.decompress(packed).decode().split("\n")[1 : len(tokenizer.bpe_ranks) + 1]
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    vocabulary = {
        {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}.get(token, token): number
        for token, number in tokenizer.encoder.items()
    }
    _write(directory / "vocab.json", vocabulary)
    _write(directory / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})


def bare_vectors(directory: Path, images: list[bytes]) -> list[list[float]]:
    """Return the unit vectors of the model alone, with open_clip's own preprocessing."""
    model = open_clip.create_model(f"local-dir:{directory}").eval()
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    with torch.inference_mode():
        pixels = torch.stack([transform(as_image(each)) for each in images])
        vectors: list[list[float]] = model.encode_image(pixels, normalize=True).tolist()
    return vectors


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
