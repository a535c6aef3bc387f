"""Models of the sizing guide at full size: their parameters, and checkpoints of random weights."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Blip2Config, Blip2ForImageTextRetrieval, Dinov2Config, Dinov2Model

from demo.service import WEIGHTS
from models.blip2 import IN_FULL
from models.config import Family, Precision

BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model as its paper or its library defines it; `write` makes a checkpoint that our loader takes."""

    name: str
    family: Family
    dimension: int
    build: Callable[[], nn.Module]
    write: Callable[[Any, Path], None]

    def parameters(self) -> int:
        """Count all parameters, without memory for any of them."""
        with torch.device("meta"):
            return _count(self.build())

    def weight_bytes(self, precision: Precision) -> int:
        """Parameters times bytes; in 8 bit only some matrices, the rest in bf16 and their scales in float32."""
        with torch.device("meta"):
            model = self.build()
        if precision != "int8":
            return _count(model) * BYTES[precision]
        matrices = eight_bit_matrices(model).values()
        small = sum(matrix.numel() for matrix in matrices)
        scales = sum(matrix.shape[0] for matrix in matrices) * BYTES["fp32"]
        return small + scales + (_count(model) - small) * BYTES["bf16"]

    def write_checkpoint(self, directory: Path) -> Path:
        """Write random weights in bf16; returns the directory."""
        directory.mkdir(parents=True)
        torch.manual_seed(0)
        with _built_in_bf16():
            self.write(self.build(), directory)
        return directory


def eight_bit_matrices(model: Any) -> dict[str, Tensor]:
    """Return the matrices of BLIP-2 that become 8 bit by the names of their layers.

    transformers leaves out what its models keep in float32 beside fp16, such as the Q-Former.
    """
    in_full = (*IN_FULL, *model._keep_in_fp32_modules)
    return {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(in_full)
    }


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def _built_in_bf16() -> Iterator[None]:
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def _open_clip(architecture: str, dimension: int) -> Architecture:
    settings = open_clip.get_model_config(architecture)
    assert settings is not None

    def write(model: nn.Module, directory: Path) -> None:
        seen = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        content = {"model_cfg": settings, "preprocess_cfg": seen}
        (directory / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
        save_file(model.state_dict(), directory / "open_clip_model.safetensors")

    return Architecture(f"OpenCLIP {architecture}", "openclip", dimension, lambda: CLIP(**settings), write)


def _dinov2(name: str, width: int, layers: int) -> Architecture:
    # Hub checkpoints have position embeddings for 518 px and are fed 224.
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, image_size=518
    )

    def write(model: Any, directory: Path) -> None:
        model.save_pretrained(directory)
        crop = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3}
        settings = {"image_processor_type": "BitImageProcessor", **crop, **_IMAGENET}
        (directory / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")

    return Architecture(name, "dinov2", width, lambda: Dinov2Model(config), write)


def _blip2() -> Architecture:
    # The defaults of the library are ViT-g and the Q-Former of the paper.
    config = Blip2Config(
        qformer_config={"vocab_size": 30_523, "use_qformer_text_input": True}, image_text_hidden_size=256
    )

    def write(model: Any, directory: Path) -> None:
        model.save_pretrained(directory)
        settings = {"image_processor_type": "BlipImageProcessor", "size": {"height": 224, "width": 224}}
        (directory / "preprocessor_config.json").write_text(
            json.dumps(settings | _IMAGENET), encoding="utf-8"
        )
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(WEIGHTS / "blip2" / file, directory / file)

    return Architecture(
        "BLIP-2 ViT-g, retrieval", "blip2", 256, lambda: Blip2ForImageTextRetrieval(config), write
    )


def _timm(architecture: str, name: str, dimension: int) -> Architecture:
    def write(model: nn.Module, directory: Path) -> None:
        timm.models.save_for_hf(model, directory, safe_serialization=True)

    def build() -> nn.Module:
        model: nn.Module = timm.create_model(architecture, num_classes=0)
        return model

    return Architecture(name, "timm", dimension, build, write)


ARCHITECTURES: dict[str, Architecture] = {
    "resnet50": _timm("resnet50", "ResNet-50", 2048),
    "vit-b-32": _open_clip("ViT-B-32", 512),
    "vit-l-14": _open_clip("ViT-L-14", 768),
    "vit-h-14": _open_clip("ViT-H-14", 1024),
    "dinov2-base": _dinov2("DINOv2 base", 768, 12),
    "dinov2-large": _dinov2("DINOv2 large", 1024, 24),
    "blip2": _blip2(),
}
