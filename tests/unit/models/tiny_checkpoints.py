"""Random tiny checkpoints in the libraries' own on-disk formats."""

from pathlib import Path

import timm
import torch
from transformers import (
    BitImageProcessor,
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipImageProcessor,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    OPTConfig,
    T5Config,
)

DEMO = Path(__file__).parents[3] / "demo" / "weights"

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def dinov2(directory: Path, registers: int = 0) -> Path:
    torch.manual_seed(1)
    # As with the published ones, positions are of a larger picture than the processor makes.
    sizes = {"image_size": 42, "patch_size": 7}
    if registers:
        config = Dinov2WithRegistersConfig(**_SMALL, **sizes, num_register_tokens=registers)
        Dinov2WithRegistersModel(config).save_pretrained(directory)
    else:
        Dinov2Model(Dinov2Config(**_SMALL, **sizes)).save_pretrained(directory)
    BitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 28, "width": 28}).save_pretrained(
        directory
    )
    return directory


def shallow_dinov2(directory: Path, width: int) -> Path:
    """One layer of a real width, such as 768 of DINOv2-base: its dimension at a fraction of its cost."""
    torch.manual_seed(1)
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=1, num_attention_heads=width // 64, image_size=28, patch_size=7
    )
    Dinov2Model(config).save_pretrained(directory)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        directory
    )
    return directory


def captioning_blip2(directory: Path, language: str = "t5", shards: bool = True) -> Path:
    """A Blip2ForConditionalGeneration; in shards, the language model fills its own."""
    torch.manual_seed(2)
    text = {
        "t5": T5Config(vocab_size=90, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=2),
        "opt": OPTConfig(
            vocab_size=90, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2
        ),
    }[language]
    config = Blip2Config(
        vision_config={**_SMALL, "intermediate_size": 64, "image_size": 28, "patch_size": 14},
        qformer_config={**_SMALL, "intermediate_size": 64, "vocab_size": 90, "encoder_hidden_size": 32},
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=89,
    )
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens, std=0.02)
    model.save_pretrained(directory, max_shard_size="40KB" if shards else "5GB")
    BlipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(directory)
    return directory


def timm_model(directory: Path, architecture: str = "test_resnet", **data: object) -> Path:
    torch.manual_seed(3)
    model = timm.create_model(architecture, pretrained=False)
    model.pretrained_cfg = {**model.pretrained_cfg, **data}
    timm.models.save_for_hf(model, directory, model_config=model.pretrained_cfg)
    return directory
