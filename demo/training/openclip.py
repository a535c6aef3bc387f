"""Command that trains the demo's OpenCLIP model: `python -m demo.training.openclip --out DIR`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from demo.garments import WORDS, random_caption
from demo.training.command import SEED, options, run
from demo.training.dataset import CLIP_MEAN, CLIP_STD, INPUT_SIZE, LabeledImages, augmented, normalized
from demo.training.optimization import Schedule, contrastive_loss, fitting, optimize

_CONTEXT = 16
_LARGEST_SCALE = float(np.log(100))


def architecture(vocabulary: int) -> dict[str, Any]:
    """Return open_clip's model configuration: a small ResNet tower, since a ViT learns shape too late."""
    return {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": INPUT_SIZE,
            "layers": [1, 1, 2, 1],
            "width": 16,
            "head_width": 32,
            "patch_size": None,
        },
        "text_cfg": {
            "context_length": _CONTEXT,
            "vocab_size": vocabulary,
            "width": 64,
            "heads": 2,
            "layers": 2,
            "hf_tokenizer_name": "tokenizer",
            "tokenizer_kwargs": {"clean": "lower"},
        },
    }


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token a word; the end token has the highest id, for open_clip's argmax pooling."""
    tokens = ["<pad>", "<unk>", *WORDS, "<start>", "<end>"]
    ids = {token: place for place, token in enumerate(tokens)}
    by_word = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    by_word.normalizer = Lowercase()
    by_word.pre_tokenizer = Whitespace()
    by_word.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(name, ids[name]) for name in ("<start>", "<end>")]
    )
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<start>", "eos_token": "<end>"}
    return PreTrainedTokenizerFast(tokenizer_object=by_word, model_max_length=_CONTEXT, **special)


def train(images: LabeledImages, steps: int, out: Path) -> None:
    """Train both towers from scratch and save them."""
    text_tokenizer = make_tokenizer()
    settings = architecture(len(text_tokenizer))
    model = CLIP(**json.loads(json.dumps(settings)))
    model = model.to(memory_format=torch.channels_last).train()
    rng, labels = np.random.default_rng(SEED), torch.from_numpy(images.labels)

    def objective(batch: NDArray[np.int64], _progress: float) -> Tensor:
        values = augmented(normalized(images.pixels[batch], CLIP_MEAN, CLIP_STD), rng)
        captions, mentioned = zip(*(random_caption(images.designs[i], rng) for i in batch), strict=True)
        ids = text_tokenizer(list(captions), padding="max_length", max_length=_CONTEXT, return_tensors="pt")[
            "input_ids"
        ]
        seen = model.encode_image(values.contiguous(memory_format=torch.channels_last), normalize=True)
        read = model.encode_text(ids, normalize=True)
        logits = model.logit_scale.clamp(0, _LARGEST_SCALE).exp() * seen @ read.T
        return contrastive_loss(logits, fitting(labels[batch], mentioned))

    optimize(objective, model.parameters(), Schedule(steps, 128, 1.5e-3), len(images), SEED)
    save(model, settings, text_tokenizer, out)


def save(model: CLIP, settings: dict[str, Any], text_tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write what open_clip's `local-dir:` schema reads, weights as fp16."""
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, out / "open_clip_model.safetensors", metadata={"format": "pt"})
    preprocessing = {
        "mean": CLIP_MEAN,
        "std": CLIP_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    description = {"model_cfg": settings, "preprocess_cfg": preprocessing}
    (out / "open_clip_config.json").write_text(json.dumps(description, indent=2) + "\n")
    text_tokenizer.save_pretrained(out)


def main(arguments: list[str] | None = None) -> None:
    """Train, save and judge."""
    training = options("Train the demo's OpenCLIP model.", steps=1500, arguments=arguments)
    run(training, "openclip", lambda images, steps: train(images, steps, training.out))


if __name__ == "__main__":
    main()
