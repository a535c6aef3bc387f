"""DINOv2 and DINOv2 with registers through transformers; images only.

Oquab et al., DINOv2 (arXiv 2304.07193); Darcet et al., registers (arXiv 2309.16588).
"""

import torch
from torch import Tensor, nn
from transformers import AutoModel

from core.errors import ConfigError
from models.checkpoint import locate, read_config, version_files, weight_files
from models.config import EncoderConfig, Pooling
from models.huggingface import load_model, load_preprocessing
from models.torch_encoder import TorchEncoder, Towers, place

_MODEL_TYPES = ("dinov2", "dinov2_with_registers")
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


class PooledStates(nn.Module):
    """Backbone whose last states are pooled to one vector an image."""

    def __init__(self, backbone: nn.Module, pooling: Pooling, registers: int) -> None:
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.first_patch = 1 + registers

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed (n, 3, h, w) as float32 (n, dimension)."""
        states: Tensor = self.backbone(pixel_values=pixels).last_hidden_state.float()
        if self.pooling == "cls":
            return states[:, 0]
        patches = states[:, self.first_patch :].mean(dim=1)
        if self.pooling == "mean":
            return patches
        # Both halves count the same whatever their length, as in DINOv2's own linear evaluation.
        return torch.cat([nn.functional.normalize(half, dim=-1) for half in (states[:, 0], patches)], dim=-1)


def load(config: EncoderConfig) -> TorchEncoder:
    """Load the backbone with transformers' own loader."""
    placement = place(config)
    directory = locate(config.checkpoint, config.revision, *_WEIGHTS)
    description = read_config(directory)
    model_type = description.get("model_type")
    if model_type not in _MODEL_TYPES:
        right = " or ".join(_MODEL_TYPES)
        raise ConfigError(
            f"{directory}/config.json says model_type {model_type}; family dinov2 needs {right}"
        )
    backbone = load_model(AutoModel, directory, placement)
    pooling = config.pooling or "cls"
    towers = Towers(
        image=PooledStates(backbone, pooling, getattr(backbone.config, "num_register_tokens", 0)),
        text=None,
        preprocessing=load_preprocessing(directory),
        files=version_files(directory, weight_files(directory)),
        architecture=str(model_type),
        pooling=pooling,
    )
    return TorchEncoder(config, towers, placement)
