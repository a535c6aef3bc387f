"""Random tiny checkpoints of transformers' dual encoders and vision backbones, in the files that the hub has."""

import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WORDS = ("red", "blue", "striped", "dress", "shirt", "hat", "on", "a", "wooden", "floor", "photo", "of")
_SIGNS = string.ascii_letters + string.digits + ",.!'"
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_TEXT, "image_size": 32, "patch_size": 8}
_SQUARE = {"height": 32, "width": 32}


def _clip_tokenizer() -> PreTrainedTokenizerBase:
    signs = [f"{sign}{end}" for end in ("", "</w>") for sign in _SIGNS.lower()]
    tokens = [*dict.fromkeys(signs), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=16
    )


def _bert_tokenizer() -> PreTrainedTokenizerBase:
    pieces = [f"{start}{sign}" for start in ("", "##") for sign in string.ascii_lowercase]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys((*_WORDS, *pieces))]
    return transformers.BertTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, model_max_length=24
    )


def _xlm_tokenizer() -> PreTrainedTokenizerBase:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*(f"▁{word}" for word in _WORDS), "▁", *_SIGNS]
    vocabulary = [(each, 0.0) for each in special] + [(each, -1.0) for each in pieces] + [("<mask>", 0.0)]
    return transformers.XLMRobertaTokenizer(vocab=vocabulary)


def _siglip_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    from sentencepiece import SentencePieceTrainer

    directory.mkdir(parents=True, exist_ok=True)
    SentencePieceTrainer.train(
        sentence_iterator=iter([*_WORDS, string.ascii_lowercase, string.digits]),
        model_prefix=str(directory / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        add_dummy_prefix=False,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
    )
    (directory / "spiece.vocab").unlink()
    return transformers.SiglipTokenizer(
        str(directory / "spiece.model"), model_max_length=16, model_input_names=["input_ids"]
    )


def _gemma_tokenizer(kind: Any = transformers.GemmaTokenizer) -> PreTrainedTokenizerBase:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *_SIGNS]
    return kind(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_max_length=16,
        model_input_names=["input_ids"],
    )


def _save(directory: Path, model: PreTrainedModel, processor: Any, tokenizer: Any = None) -> Path:
    """Save a checkpoint in the files of the hub, with weights that tell images apart.

    A fresh model's are so small that all images have nearly the same vector.
    """
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            fan_in = parameter[0].numel()
            wide = 1.0 if "embed" in name or "token" in name else 1.2 / fan_in**0.5
            nn.init.normal_(parameter, std=wide, generator=generator)
        elif "gamma" in name or "lambda1" in name or "layer_scale" in name:
            nn.init.constant_(parameter, 0.5)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    return directory


def _cropping(name: str = "CLIPImageProcessor", **settings: Any) -> Any:
    return getattr(transformers, name)(
        **{"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, **settings}
    )


def clip(directory: Path) -> Path:
    tokenizer = _clip_tokenizer()
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = transformers.CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=24)
    return _save(directory, transformers.CLIPModel(config), _cropping(), tokenizer)


def siglip(directory: Path) -> Path:
    tokenizer = _siglip_tokenizer(directory)
    return _siglip(directory, tokenizer, resample=3)


def siglip2(directory: Path) -> Path:
    """A fixed size, as most published ones of SigLIP 2: type siglip with the tokenizer of Gemma."""
    return _siglip(directory, _gemma_tokenizer(), resample=2)


def _siglip(directory: Path, tokenizer: PreTrainedTokenizerBase, resample: int) -> Path:
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 32}
    config = transformers.SiglipConfig(text_config=text, vision_config=_VISION)
    processor = transformers.SiglipImageProcessor(size=_SQUARE, resample=resample)
    return _save(directory, transformers.SiglipModel(config), processor, tokenizer)


def naflex(directory: Path) -> Path:
    tokenizer = _gemma_tokenizer(transformers.Siglip2Tokenizer)
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 32}
    config = transformers.Siglip2Config(
        text_config=text, vision_config={**_TEXT, "num_patches": 16, "patch_size": 8}
    )
    processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    return _save(directory, transformers.Siglip2Model(config), processor, tokenizer)


def metaclip2(directory: Path) -> Path:
    tokenizer = _xlm_tokenizer()
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 20}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = transformers.MetaClip2Config(text_config=text, vision_config=_VISION, projection_dim=24)
    return _save(directory, transformers.MetaClip2Model(config), _cropping(), tokenizer)


def chinese_clip(directory: Path) -> Path:
    tokenizer = _bert_tokenizer()
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=24)
    processor = _cropping("ChineseCLIPImageProcessor", size={"height": 32, "width": 32}, do_center_crop=False)
    return _save(directory, transformers.ChineseCLIPModel(config), processor, tokenizer)


def altclip(directory: Path) -> Path:
    tokenizer = _xlm_tokenizer()
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 26, "project_dim": 32}
    text |= {"pad_token_id": tokenizer.pad_token_id}
    config = transformers.AltCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=24)
    return _save(directory, transformers.AltCLIPModel(config), _cropping(), tokenizer)


def align(directory: Path) -> Path:
    tokenizer = _bert_tokenizer()
    vision = {
        "image_size": 32,
        "hidden_dim": 32,
        "in_channels": [32, 16],
        "out_channels": [16, 32],
        "kernel_sizes": [3, 3],
        "strides": [1, 2],
        "expand_ratios": [1, 2],
        "num_block_repeats": [1, 1],
        "depthwise_padding": [],
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
    }
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
    config = transformers.AlignConfig(text_config=text, vision_config=vision, projection_dim=32)
    processor = transformers.EfficientNetImageProcessor(
        size={"height": 40, "width": 40},
        crop_size=_SQUARE,
        do_center_crop=True,
        rescale_factor=1 / 127.5,
        rescale_offset=True,
        do_normalize=False,
        include_top=False,
        resample=2,
    )
    return _save(directory, transformers.AlignModel(config), processor, tokenizer)


def dinov3_vit(directory: Path) -> Path:
    config = transformers.DINOv3ViTConfig(**_VISION, num_register_tokens=4)
    processor = transformers.DINOv3ViTImageProcessor(size=_SQUARE)
    return _save(directory, transformers.DINOv3ViTModel(config), processor)


def dinov3_convnext(directory: Path) -> Path:
    config = transformers.DINOv3ConvNextConfig(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 2, 1])
    processor = transformers.DINOv3ViTImageProcessor(size={"height": 96, "width": 96})
    return _save(directory, transformers.DINOv3ConvNextModel(config), processor)


def dinov2(directory: Path) -> Path:
    config = transformers.Dinov2Config(**{**_VISION, "image_size": 48})
    return _save(directory, transformers.Dinov2Model(config), _cropping("BitImageProcessor"))


def vit(directory: Path) -> Path:
    config = transformers.ViTConfig(**_VISION)
    return _save(directory, transformers.ViTModel(config), transformers.ViTImageProcessor(size=_SQUARE))


def vit_classifier(directory: Path) -> Path:
    """A checkpoint without a pooler."""
    config = transformers.ViTConfig(**_VISION)
    return _save(
        directory,
        transformers.ViTForImageClassification(config),
        transformers.ViTImageProcessor(size=_SQUARE),
    )


def swin(directory: Path) -> Path:
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    return _save(directory, transformers.SwinModel(config), transformers.ViTImageProcessor(size=_SQUARE))


def convnext(directory: Path, edge: int = 64) -> Path:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 2, 1])
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": edge}, crop_pct=0.875)
    return _save(directory, transformers.ConvNextModel(config), processor)


def resnet(directory: Path) -> Path:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1], layer_type="basic"
    )
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875)
    return _save(directory, transformers.ResNetModel(config), processor)


def siglip_vision(directory: Path) -> Path:
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_VISION))
    return _save(directory, model, transformers.SiglipImageProcessor(size=_SQUARE))


def pvt(directory: Path) -> Path:
    """A convolution's states, and no pooler."""
    config = transformers.PvtV2Config(
        hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2]
    )
    processor = transformers.PvtImageProcessor(size={"height": 64, "width": 64})
    return _save(directory, transformers.PvtV2Model(config), processor)


def language_model(directory: Path) -> Path:
    config = transformers.BertConfig(**_TEXT, vocab_size=90)
    return _save(directory, transformers.BertModel(config), _cropping(), _bert_tokenizer())


DUAL_ENCODERS: Mapping[str, Callable[[Path], Path]] = {
    make.__name__: make for make in (clip, siglip, siglip2, metaclip2, chinese_clip, altclip, align)
}
BACKBONES: Mapping[str, Callable[[Path], Path]] = {
    make.__name__: make
    for make in (
        dinov3_vit,
        dinov3_convnext,
        dinov2,
        vit,
        vit_classifier,
        swin,
        convnext,
        resnet,
        siglip_vision,
        pvt,
    )
}
