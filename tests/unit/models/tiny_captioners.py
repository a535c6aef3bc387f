"""Random tiny BLIP-2 captioning checkpoints whose words depend on the picture, with real tokenizers."""

import string
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AddedToken,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    GPT2Tokenizer,
    OPTConfig,
    PreTrainedTokenizerBase,
    T5Config,
    T5Tokenizer,
)

Language = Literal["t5", "opt"]
QUERIES = 4
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


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
    # Weights as small as a fresh model's give every picture the same words.
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
