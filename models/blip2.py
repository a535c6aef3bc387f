"""BLIP-2 through transformers: retrieval and captioning checkpoints, in 8 bit where asked.

Retrieval checkpoints (Blip2ForImageTextRetrieval) embed images and words in one space: the mean of the
projected query states, against the projected first text token. Captioning checkpoints embed images by
the mean of their Q-Former states; their language model is neither loaded nor read unless captions are
asked for.
Li et al., BLIP-2 (arXiv 2301.12597).
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2PreTrainedModel,
    Blip2QFormerModel,
    Blip2VisionModel,
)

from core.errors import ConfigError
from models.checkpoint import (
    SETTINGS,
    download,
    locate,
    read_config,
    version_files,
    weight_files,
    weight_index,
    weight_map,
)
from models.config import CaptionConfig, EncoderConfig
from models.huggingface import load_model, load_preprocessing
from models.torch_encoder import Placement, TorchEncoder, Towers, Writing, place


class QueryStates(nn.Module):
    """One vector an image: the mean over the queries, projected first where there is a retrieval head.

    The mean stands in for the maximum over queries by which BLIP-2 scores: a single vector cannot hold
    the maximum, and one query alone loses most of the accuracy.
    """

    def __init__(self, model: Any, projection: nn.Module | None) -> None:
        super().__init__()
        self.vision_model, self.qformer, self.query_tokens = (
            model.vision_model,
            model.qformer,
            model.query_tokens,
        )
        # In float32 whatever the towers are: it costs nothing and is the last step before comparing.
        self.projection = projection.float() if projection is not None else None

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, h, w) to float32 (n, dimension)."""
        seen = self.vision_model(pixel_values=pixels).last_hidden_state
        everywhere = torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device)
        states: Tensor = self.qformer(
            query_embeds=self.query_tokens.expand(len(seen), -1, -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=everywhere,
        ).last_hidden_state.float()
        if self.projection is None:
            return states.mean(dim=1)
        return nn.functional.normalize(self.projection(states), dim=-1).mean(dim=1)


class TextProjection(nn.Module):
    """Words through the Q-Former: the projected state of the first token."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.embeddings, self.qformer = model.embeddings, model.qformer
        self.projection = model.text_projection.float()
        self.tokenizer = tokenizer
        self.longest = min(tokenizer.model_max_length, model.config.qformer_config.max_position_embeddings)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts, cut at the model's longest, to float32 (n, dimension)."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(self.projection.weight.device)
        states = self.qformer(
            query_embeds=self.embeddings(input_ids=tokens["input_ids"]),
            query_length=0,
            attention_mask=tokens["attention_mask"],
        ).last_hidden_state
        projected: Tensor = self.projection(states[:, 0].float())
        return projected


_LANGUAGE = ("language_model.", "language_projection.")


class Blip2WithoutLanguage(Blip2PreTrainedModel):  # type: ignore[misc]
    """Vision tower, queries and Q-Former, under the names that captioning checkpoints use."""

    config_class = Blip2Config
    _keep_in_fp32_modules = ("query_tokens", "qformer")
    _keys_to_ignore_on_load_unexpected = (r"^language_model\.", r"^language_projection\.")

    def __init__(self, config: Blip2Config) -> None:
        super().__init__(config)
        queries = torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size)
        self.vision_model = Blip2VisionModel._from_config(config.vision_config)
        self.query_tokens = nn.Parameter(queries)
        self.qformer = Blip2QFormerModel._from_config(config.qformer_config)
        self.post_init()


def is_seeing_key(key: str) -> bool:
    """Whether a tensor of the checkpoint belongs to anything but its language model."""
    return not key.startswith(_LANGUAGE)


def locate_seeing(checkpoint: str, revision: str | None) -> Path:
    """Find the checkpoint's directory; from the hub only the shards that embeddings need are downloaded.

    Raises:
        ConfigError: neither a directory nor a hub id, or the hub refuses it.
        ModelUnavailable: the hub cannot be reached and nothing is cached.
    """
    directory = locate(checkpoint, revision, "config.json")
    index = weight_index(directory)
    if Path(checkpoint).expanduser().is_dir():
        return directory
    if index is None:
        return locate(checkpoint, revision, "model.safetensors", "pytorch_model.bin")
    shards = {shard for key, shard in weight_map(index).items() if is_seeing_key(key)}
    return download(checkpoint, revision, *SETTINGS, *shards)


def load_seeing_model(directory: Path, placement: Placement) -> Any:
    """Load `Blip2WithoutLanguage`, opening only the shards that hold a part of it."""
    index = weight_index(directory)
    if index is None:
        return load_model(Blip2WithoutLanguage, directory, placement)
    wanted = {key: shard for key, shard in weight_map(index).items() if is_seeing_key(key)}
    # transformers insists on every shard that the index names: give it an index that names fewer.
    with TemporaryDirectory(prefix="blip2-") as trimmed:
        view = Path(trimmed)
        (view / index.name).write_text(json.dumps({"metadata": {}, "weight_map": wanted}), encoding="utf-8")
        for name in {"config.json", *wanted.values()}:
            (view / name).symlink_to((directory / name).resolve())
        return load_model(Blip2WithoutLanguage, view, placement)


_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_CAPTIONING_IN_FULL = ("language_projection", "lm_head")
"""Modules that never become 8 bit: what joins images to words, and what chooses words."""


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
    return load_model(Blip2ForConditionalGeneration, directory, placement, in_full=_CAPTIONING_IN_FULL)


def load_writer(model: Any, directory: Path, config: CaptionConfig) -> CaptionWriter:
    """Make a writer of a loaded model and the tokenizer beside it.

    Raises:
        ConfigError: the checkpoint does not say where images stand among its tokens.
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


_RETRIEVAL = "Blip2ForImageTextRetrieval"
_CAPTIONING = "Blip2ForConditionalGeneration"
IN_FULL = ("vision_projection", "text_projection", "itm_head")
"""Modules that never become 8 bit: activations are cast to their dtype, which must not be int8."""


def load(config: EncoderConfig) -> TorchEncoder:
    """Load what embeddings need of either kind of checkpoint."""
    # bitsandbytes warns at every product of matrices that it casts activations, which is meant here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    placement = place(config)
    find = locate_seeing if config.captions is None else locate_whole
    directory = find(config.checkpoint, config.revision)
    towers = _load_towers(_architecture(directory), directory, placement, config.captions)
    return TorchEncoder(config, towers, placement)


def _load_towers(
    architecture: str, directory: Path, placement: Placement, captions: CaptionConfig | None
) -> Towers:
    if architecture == _CAPTIONING:
        return _load_captioning(directory, placement, captions)
    if captions is not None:
        raise ConfigError(
            f"{directory} is a retrieval checkpoint and has no language model; captions need one of "
            f"architecture {_CAPTIONING}, such as Salesforce/blip2-opt-2.7b"
        )
    return _load_retrieval(directory, placement)


def _load_retrieval(directory: Path, placement: Placement) -> Towers:
    model = load_model(Blip2ForImageTextRetrieval, directory, placement, in_full=IN_FULL)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return Towers(
        image=QueryStates(model, model.vision_projection).eval(),
        text=TextProjection(model, tokenizer),
        preprocessing=load_preprocessing(directory),
        files=version_files(directory, weight_files(directory)),
        architecture=_RETRIEVAL,
        pooling="mean of projected queries",
    )


def _load_captioning(directory: Path, placement: Placement, captions: CaptionConfig | None) -> Towers:
    writing = None
    if captions is None:
        model = load_seeing_model(directory, placement)
    else:
        model = load_whole_model(directory, placement)
        files = version_files(directory, weight_files(directory))
        writing = Writing(load_writer(model, directory, captions), files, captions.max_batch_size)
    return Towers(
        image=QueryStates(model, None).eval(),
        text=None,
        preprocessing=load_preprocessing(directory),
        files=version_files(directory, weight_files(directory, is_seeing_key)),
        architecture=_CAPTIONING,
        pooling="mean of query states",
        writing=writing,
    )


def _architecture(directory: Path) -> str:
    names = read_config(directory).get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if name not in (_RETRIEVAL, _CAPTIONING):
        raise ConfigError(
            f"{directory}/config.json says architecture {name}; "
            f"family blip2 needs {_RETRIEVAL} or {_CAPTIONING}"
        )
    return str(name)
