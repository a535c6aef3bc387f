"""A trained DINOv2 as the frozen image encoder of a BLIP-2."""

import torch
from torch import nn
from transformers import Blip2VisionConfig, Blip2VisionModel, Dinov2Model


def vision_config(source: Dinov2Model) -> Blip2VisionConfig:
    """The configuration of a BLIP-2 image encoder that has room for the DINOv2's weights."""
    config = source.config
    return Blip2VisionConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.hidden_size * config.mlp_ratio,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        layer_norm_eps=config.layer_norm_eps,
        initializer_range=config.initializer_range,
    )


@torch.no_grad()
def transplant(source: Dinov2Model, target: Blip2VisionModel) -> None:
    """Copy the weights and freeze them; afterwards both give the same states for the same pictures.

    BLIP-2's encoder has no layer scale, so DINOv2's goes into the matrices before it, and one matrix
    for queries, keys and values where DINOv2 has three.
    """
    given, taken = source.embeddings, target.embeddings
    taken.class_embedding.copy_(given.cls_token)
    taken.position_embedding.copy_(given.position_embeddings)
    taken.patch_embedding.load_state_dict(given.patch_embeddings.projection.state_dict())
    for layer, own in zip(source.encoder.layer, target.encoder.layers, strict=True):
        attention = layer.attention
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        own.self_attn.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
        own.self_attn.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        _scaled(attention.o_proj, layer.layer_scale1.lambda1, own.self_attn.projection)
        own.mlp.fc1.load_state_dict(layer.mlp.fc1.state_dict())
        _scaled(layer.mlp.fc2, layer.layer_scale2.lambda1, own.mlp.fc2)
        own.layer_norm1.load_state_dict(layer.norm1.state_dict())
        own.layer_norm2.load_state_dict(layer.norm2.state_dict())
    target.post_layernorm.load_state_dict(source.layernorm.state_dict())
    target.requires_grad_(False)


def _scaled(given: nn.Linear, scale: torch.Tensor, taken: nn.Linear) -> None:
    taken.weight.copy_(given.weight * scale[:, None])
    taken.bias.copy_(given.bias * scale)
