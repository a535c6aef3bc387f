"""Random tiny checkpoints in the libraries' own formats, also as the hub's cache holds them."""

import hashlib
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from transformers import (
    AddedToken,
    BertTokenizer,
    BitImageProcessor,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    BlipImageProcessor,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    GPT2Tokenizer,
    OPTConfig,
    PreTrainedTokenizerBase,
    T5Config,
    T5Tokenizer,
)

from models.blip2 import is_embedding_key
from models.checkpoint import weight_files

DEMO = Path(__file__).parents[2] / "demo" / "weights"

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def dinov2(directory: Path, registers: int = 0) -> Path:
    torch.manual_seed(1)
    # As with the published ones, positions are of a larger image than the processor makes.
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


def retrieval_blip2(directory: Path) -> Path:
    """A Blip2ForImageTextRetrieval with its Blip2Processor; weights large enough that pairs differ in score."""
    torch.manual_seed(5)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "dress", "striped")
    tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(words)}, model_max_length=12)
    config = Blip2Config(
        vision_config={**_SMALL, "intermediate_size": 64, "image_size": 28, "patch_size": 14},
        qformer_config={
            **{**_SMALL, "intermediate_size": 64, "vocab_size": len(words), "encoder_hidden_size": 32},
            **{"use_qformer_text_input": True, "max_position_embeddings": 12, "cross_attention_frequency": 2},
        },
        num_query_tokens=QUERIES,
        image_text_hidden_size=16,
    )
    model = Blip2ForImageTextRetrieval(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            torch.nn.init.normal_(parameter, std=1.0 if "query_tokens" in name else 0.3)
    model.save_pretrained(directory)
    images = BlipImageProcessor(size={"height": 28, "width": 28})
    Blip2Processor(images, tokenizer, num_query_tokens=None).save_pretrained(directory)
    return directory


def timm_model(directory: Path, architecture: str = "test_resnet", **data: object) -> Path:
    torch.manual_seed(3)
    model = timm.create_model(architecture, pretrained=False)
    model.pretrained_cfg = {**model.pretrained_cfg, **data}
    timm.models.save_for_hf(model, directory, model_config=model.pretrained_cfg)
    return directory


Language = Literal["t5", "opt"]
QUERIES = 4


def captioner(directory: Path, language: Language, bos: bool = True) -> Path:
    """A Blip2ForConditionalGeneration with its Blip2Processor, as the hub's are laid out, in shards."""
    torch.manual_seed(4)
    tokenizer = _tokenizer(language)
    tokenizer.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    config = Blip2Config(
        vision_config={**_SMALL, "intermediate_size": 64, "image_size": 28, "patch_size": 14},
        qformer_config={**_SMALL, "intermediate_size": 64, "vocab_size": 90, "encoder_hidden_size": 32},
        text_config=_text_config(language, len(tokenizer), bos),
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = Blip2ForConditionalGeneration(config)
    # Weights as small as a fresh model's give every image the same words.
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            torch.nn.init.normal_(parameter, std=1.0 if "query_tokens" in name else 0.3)
    model.save_pretrained(directory, max_shard_size="60KB")
    images = BlipImageProcessor(size={"height": 28, "width": 28})
    Blip2Processor(images, tokenizer, num_query_tokens=QUERIES).save_pretrained(directory)
    return directory


def _text_config(language: Language, vocabulary: int, bos: bool) -> dict[str, Any]:
    if language == "opt":
        sizes = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        return OPTConfig(vocab_size=vocabulary, word_embed_proj_dim=32, **sizes).to_dict()
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    start = {"decoder_start_token_id": 0} | ({"bos_token_id": 1} if bos else {})
    return T5Config(vocab_size=vocabulary, tie_word_embeddings=False, **sizes, **start).to_dict()


def _tokenizer(language: Language) -> PreTrainedTokenizerBase:
    words = ("red", "blue", "green", "dress", "shirt", "hat", "striped", "checked", "photo", "of", "a")
    if language == "t5":
        special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
        pieces = [(f"▁{word}", -1.0) for word in words] + [(each, -3.0) for each in "▁:?"]
        return T5Tokenizer(
            vocab=special + pieces + [(each, -3.0) for each in string.ascii_letters], extra_ids=0
        )
    signs = [f"{space}{sign}" for space in ("", "Ġ") for sign in string.ascii_letters + ":?"]
    vocabulary = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", *signs])}
    return GPT2Tokenizer(
        vocab=vocabulary,
        merges=[],
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="</s>",
        add_bos_token=True,
    )


_COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fill(cache: Path, repository: str, files: Iterable[Path]) -> Path:
    """Put the files into the cache as `main` of a repository, weights named by their hash; the snapshot."""
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / _COMMIT
    for folder in (home / "refs", home / "blobs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(_COMMIT)
    for file in files:
        content = file.read_bytes()
        # The hub names large files by sha256 and small ones by git's own, shorter hash.
        digest = hashlib.sha1 if file.suffix in {".json", ".txt"} else hashlib.sha256
        blob = home / "blobs" / digest(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
    return snapshot


def remove_language_shards(directory: Path) -> None:
    """Remove the shards of a captioning checkpoint that embeddings do not need."""
    unneeded = {*directory.glob("model-*")} - {*weight_files(directory, is_embedding_key)}
    assert unneeded
    for shard in unneeded:
        shard.unlink()
