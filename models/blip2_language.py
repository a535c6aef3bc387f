"""A BLIP-2 captioning checkpoint with its language model: pictures to words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

from core.errors import ConfigError
from models.checkpoint import locate
from models.config import CaptionConfig
from models.hf_loading import load_model
from models.placement import Placement

_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
IN_FULL = ("language_projection", "lm_head")
"""Modules that never become 8 bit: what joins pictures to words, and what chooses words."""


class CaptionWriter:
    """Writes captions with a whole `Blip2ForConditionalGeneration`, by greedy or beam search."""

    def __init__(self, model: Any, tokenizer: Any, config: CaptionConfig) -> None:
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._start = _start_tokens(model.config, tokenizer, config.prompt)

    def __call__(self, pixels: Tensor) -> list[str]:
        """(n, 3, h, w) to n captions, without the prompt; one may be empty."""
        start = torch.tensor([self._start], device=pixels.device).repeat(len(pixels), 1)
        written = self._model.generate(
            pixel_values=pixels,
            input_ids=start,
            attention_mask=torch.ones_like(start),
            max_new_tokens=self._config.max_new_tokens,
            num_beams=self._config.num_beams,
            do_sample=False,
        )
        if self._model.config.use_decoder_only_language_model:
            # A decoder's answer begins with what it was asked.
            written = written[:, len(self._start) :]
        texts: Sequence[str] = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]


def locate_whole(checkpoint: str, revision: str | None) -> Path:
    """Find the checkpoint's directory with all of its weights.

    Raises:
        ConfigError: neither a directory nor a hub id, or the hub refuses it.
        ModelUnavailable: the hub cannot be reached and nothing is cached.
    """
    return locate(checkpoint, revision, *_WEIGHTS)


def load_whole_model(directory: Path, placement: Placement) -> Any:
    """Load vision tower, Q-Former and language model."""
    return load_model(Blip2ForConditionalGeneration, directory, placement, in_full=IN_FULL)


def load_writer(model: Any, directory: Path, config: CaptionConfig) -> CaptionWriter:
    """Make a writer of a loaded model and the tokenizer beside it.

    Raises:
        ConfigError: the checkpoint does not say where pictures stand among its tokens.
    """
    return CaptionWriter(model, AutoTokenizer.from_pretrained(directory), config)


def _start_tokens(description: Any, tokenizer: Any, prompt: str | None) -> list[int]:
    """What generation begins with, as Blip2Processor builds it: places for the queries, then the prompt."""
    place = description.image_token_index
    if place is None:
        raise ConfigError(
            "the checkpoint's config.json lacks image_token_index; take a revision that has it, such as main"
        )
    first = getattr(description.text_config, "bos_token_id", None)
    words = [first] if prompt is None and first is not None else tokenizer(prompt or "").input_ids
    return [place] * int(description.num_query_tokens) + list(words)
