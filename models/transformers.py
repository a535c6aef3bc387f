"""Dual encoders and vision backbones of transformers, by what a model can do, not by a list of types.

A model that embeds images and texts gives both: CLIP, SigLIP and SigLIP 2, MetaCLIP 2, Chinese-CLIP, AltCLIP, ALIGN.
Any other that reads pixels gives images: DINOv2 and DINOv3, ViT, Swin, ConvNeXt, ResNet.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from core.errors import ConfigError
from models.checkpoint import locate, read_config, version_files, weight_files
from models.config import EncoderConfig, Pooling
from models.device import Placement, place
from models.huggingface import load_model, load_preprocessing, tokens_of
from models.preprocessing import Preprocessing
from models.torch_encoder import Tokens, TorchEncoder, Towers, compiles

WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_OTHERS = {"blip-2": "blip2", "timm_wrapper": "timm"}
"""Types that another family loads."""
_LOWER_CASE = ("siglip", "siglip2")
"""Types that were trained on lower-case texts, which their tokenizers do not always make."""
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""Files of which a tokenizer needs one; without any, transformers makes an empty one, which knows no word."""
_POOLER = "pooler"
_IN_FULL = ("visual_projection", "text_projection", "head", _POOLER)
"""Modules that never become 8 bit: the last steps to a vector, and SigLIP's attention that pools."""
_ALIKE = 0.99
"""Least cosine of a text with and without padding where the model masks it; more than bf16 takes away."""


class ImageFeatures(nn.Module):
    """Image tower of a dual encoder, with its projection."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed (n, 3, h, w) as (n, dimension)."""
        features: Tensor = self.model.get_image_features(pixel_values=pixels).pooler_output
        return features


class TextFeatures(nn.Module):
    """Text tower of a dual encoder, with its tokenizer and projection."""

    def __init__(self, model: Any, tokenizer: Any, lower_case: bool) -> None:
        """`model` is on its device. Runs one text to learn how texts are padded."""
        super().__init__()
        self.model, self.tokenizer, self.lower_case = model, tokenizer, lower_case
        self.context_length = _context_length(model, tokenizer)
        self.padding = "longest"
        self.padding = "longest" if self._masks_padding() else "max_length"

    def forward(self, **tokens: Tensor) -> Tensor:
        """Embed texts that `tokens` has read as (n, dimension)."""
        features: Tensor = self.model.get_text_features(**tokens).pooler_output
        return features

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Read texts as tokens, cut at the model's longest."""
        read = [self.as_trained(text) for text in texts]
        return tokens_of(self.tokenizer, read, self.padding, self.context_length)

    def as_trained(self, text: str) -> str:
        """Return the text as the tokenizer was given texts in training."""
        return text.lower() if self.lower_case else text

    def _masks_padding(self) -> bool:
        """Return whether a text has the same vector beside a longer one.

        SigLIP reads its last position, and was trained with all texts padded to the full length.
        """
        with torch.inference_mode():
            alone, beside = (
                self(**{name: each.to(self.model.device) for name, each in self.tokens(texts).items()})[0]
                for texts in (["hat"], ["hat", "a striped shirt and a hat " * self.context_length])
            )
            alone, beside = alone.float(), beside.float()
        return bool(torch.cosine_similarity(alone, beside, dim=0) >= _ALIKE)


class PooledStates(nn.Module):
    """Backbone whose answer is pooled to one vector an image.

    `own` is what the model pools itself. The others pool its last states: the class token, the mean of the
    patches, or both.
    """

    def __init__(self, backbone: Any, pooling: str, first_patch: int) -> None:
        super().__init__()
        self.backbone, self.pooling, self.first_patch = backbone, pooling, first_patch

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed (n, 3, h, w) as float32 (n, dimension)."""
        answer = self.backbone(pixel_values=pixels)
        if self.pooling == "own":
            pooled: Tensor = answer.pooler_output
            return pooled.float().flatten(1)
        states = _tokens(answer.last_hidden_state).float()
        if self.pooling == "cls":
            return states[:, 0]
        patches = states[:, self.first_patch :].mean(dim=1)
        if self.pooling == "mean":
            return patches
        # Both halves count the same whatever their length, as in DINOv2's own linear evaluation.
        return torch.cat([nn.functional.normalize(half, dim=-1) for half in (states[:, 0], patches)], dim=-1)


def load(config: EncoderConfig) -> TorchEncoder:
    """Load both towers of a dual encoder, or a vision backbone, with transformers' own loaders."""
    placement = place(config)
    directory = locate(config.checkpoint, config.revision, *WEIGHTS)
    model_type, is_dual = _capability(directory)
    if not is_dual:
        return TorchEncoder(config, backbone(directory, model_type, placement, config.pooling), placement)
    if config.pooling is not None:
        raise ConfigError(f"{directory} projects to one vector by itself; leave out pooling {config.pooling}")
    towers = _dual_encoder(directory, model_type, placement, one_length=compiles(config, placement))
    return TorchEncoder(config, towers, placement)


def _dual_encoder(directory: Path, model_type: str, placement: Placement, one_length: bool) -> Towers:
    if not any((directory / name).is_file() for name in _TOKENIZERS):
        raise ConfigError(f"{directory} holds no tokenizer: none of {', '.join(_TOKENIZERS)}")
    files = version_files(directory, weight_files(directory))
    preprocessing = load_preprocessing(directory)
    model = load_model(AutoModel, directory, placement, in_full=_IN_FULL)
    tokenizer, counter = (AutoTokenizer.from_pretrained(directory, trust_remote_code=False) for _ in range(2))
    text = TextFeatures(model, tokenizer, model_type in _LOWER_CASE)
    if one_length:
        text.padding = "max_length"
    return Towers(
        image=ImageFeatures(model),
        text=text,
        tokens=text.tokens,
        has_one_length=text.padding == "max_length",
        preprocessing=preprocessing,
        files=files,
        architecture=model_type,
        pooling="own",
        # A tokenizer of its own: one may not be used while another thread uses it.
        text_tokens=lambda each: len(counter(text.as_trained(each), verbose=False).input_ids),
        context_length=text.context_length,
    )


def backbone(directory: Path, model_type: str, placement: Placement, pooling: Pooling | None) -> Towers:
    """Load a vision backbone; without `pooling` it pools as the model does, else by its class token or the mean.

    Raises:
        ConfigError: the model gives no vector an image, or none by this pooling.
    """
    files = version_files(directory, weight_files(directory))
    preprocessing = load_preprocessing(directory)
    # A classifier's checkpoint has no pooler: its head reads the class token.
    model = load_model(AutoModel, directory, placement, in_full=_IN_FULL, optional=_POOLER)
    pooled = _pooled(model, preprocessing, placement, pooling, directory)
    return Towers(
        image=pooled,
        text=None,
        preprocessing=preprocessing,
        files=files,
        architecture=model_type,
        pooling=pooled.pooling,
    )


def _pooled(
    model: Any, preprocessing: Preprocessing, placement: Placement, pooling: Pooling | None, directory: Path
) -> PooledStates:
    """Learn from one gray image what the model answers with, and pool that."""
    height, width = preprocessing.crop
    with torch.inference_mode():
        gray = torch.zeros((1, 3, height, width), dtype=placement.dtype, device=placement.device)
        answer = model(pixel_values=gray)
    first_patch = _first_patch(answer, getattr(model.config, "patch_size", None), (height, width))
    by_tokens: tuple[Pooling, ...] = ("cls", "mean", "cls+mean") if first_patch else ("mean",)
    fitting = () if first_patch is None else by_tokens
    own = ("own",) if getattr(answer, "pooler_output", None) is not None else ()
    if not (own or fitting):
        raise ConfigError(f"{directory} holds a {type(model).__name__}, which gives no vector an image")
    if pooling is not None and pooling not in fitting:
        right = f"pooling {' or '.join(fitting)}" if fitting else "no pooling: it pools by itself"
        raise ConfigError(f"pooling {pooling} does not fit {type(model).__name__}, which takes {right}")
    return PooledStates(model, pooling or (*own, *fitting)[0], first_patch or 0)


def _first_patch(answer: Any, patch_size: Any, size: tuple[int, int]) -> int | None:
    """Count the tokens before the first patch; None where the states are not one for each patch."""
    states = getattr(answer, "last_hidden_state", None)
    if states is None:
        return None
    if states.dim() == 4:
        return 0
    if not patch_size:
        return None
    sides = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    before = int(states.shape[1]) - (size[0] // sides[0]) * (size[1] // sides[1])
    return before if before >= 0 else None


def _tokens(states: Tensor) -> Tensor:
    """Lay the states of a convolution (n, dimension, h, w) out as (n, h * w, dimension)."""
    return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states


def _capability(directory: Path) -> tuple[str, bool]:
    """Return the model type of a checkpoint, and whether it is a dual encoder; otherwise it is a backbone.

    Raises:
        ConfigError: it is neither.
    """
    description = read_config(directory)
    model_type = description.get("model_type")
    if model_type in _OTHERS or "pretrained_cfg" in description:
        family = _OTHERS.get(str(model_type), "timm")
        raise ConfigError(f"{directory} is a checkpoint of family {family}")
    if model_type not in CONFIG_MAPPING:
        code = "; code that comes with a checkpoint is never run" if "auto_map" in description else ""
        raise ConfigError(
            f"{directory}/config.json says model_type {model_type}, which transformers does not know{code}"
        )
    model_class = MODEL_MAPPING.get(type(AutoConfig.from_pretrained(directory)), None)
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    is_dual = hasattr(model_class, "get_image_features") and hasattr(model_class, "get_text_features")
    if not is_dual and getattr(model_class, "main_input_name", None) != "pixel_values":
        raise ConfigError(
            f"{directory} holds a {model_type}, which does not embed images; "
            "a dual encoder such as clip or siglip does, or a vision backbone such as vit or dinov2"
        )
    return str(model_type), is_dual


def _context_length(model: Any, tokenizer: Any) -> int:
    """Return the most tokens of a text: what tokenizer and table of positions both allow.

    Raises:
        ConfigError: neither has a limit.
    """
    tables = [
        table
        for name, table in getattr(model, "text_model", model).named_modules()
        if isinstance(table, nn.Embedding) and "position" in name
    ]
    # RoBERTa's first position is behind that of the padding.
    lengths = [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1) for table in tables
    ]
    longest = min([int(tokenizer.model_max_length), *lengths])
    if longest >= VERY_LARGE_INTEGER:
        raise ConfigError("neither the tokenizer nor the text tower says how many tokens a text may have")
    return longest
