"""BLIP-2 through transformers: retrieval and captioning checkpoints, in 8 bit where configured.

Retrieval checkpoints (Blip2ForImageTextRetrieval) embed images and texts in one space: an image as the mean of
the projected query states, a text as the projected first token. Their matching head scores an image and a text
together, which re-ranks what vectors have found. Captioning checkpoints embed images as the mean
of their Q-Former states. Their language model is loaded only where captions are configured.
Li et al., BLIP-2 (arXiv 2301.12597).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
from models.device import Placement, place
from models.huggingface import load_model, load_preprocessing, tokens_of
from models.matching import Features
from models.torch_encoder import LanguageTower, MatchingHead, Tokens, TorchEncoder, Towers

_LANGUAGE = ("language_model.", "language_projection.")
_HEAD = "itm_head."
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_CAPTIONING_IN_FULL = ("language_projection", "lm_head")
"""Modules that never become 8 bit: the projection to the language model, and its output layer."""
_RETRIEVAL = "Blip2ForImageTextRetrieval"
_CAPTIONING = "Blip2ForConditionalGeneration"
IN_FULL = ("vision_projection", "text_projection", "itm_head")
"""Modules that never become 8 bit: activations take their dtype, which must not be int8. transformers adds the
Q-Former to them."""


class QueryStates(nn.Module):
    """One vector an image: the mean over the queries, projected first where there is a retrieval head.

    BLIP-2 scores by the maximum over queries, which a single vector cannot hold. One query alone loses most of
    the accuracy.
    """

    def __init__(self, model: Any, projection: nn.Module | None) -> None:
        super().__init__()
        self.vision_model, self.qformer, self.query_tokens = (
            model.vision_model,
            model.qformer,
            model.query_tokens,
        )
        # Always float32: it costs nothing and is the last step before vectors are compared.
        self.projection = projection.float() if projection is not None else None

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed (n, 3, h, w) as float32 (n, dimension)."""
        return self.look(pixels)[1].mean(dim=1)

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the patches' states of (n, 3, h, w), and the queries, float32 (n, queries, dimension)."""
        patches: Tensor = self.vision_model(pixel_values=pixels).last_hidden_state
        states: Tensor = self.qformer(
            query_embeds=self.query_tokens.expand(len(patches), -1, -1),
            # Without a mask of ones, which transformers would read from the device at each batch.
            encoder_hidden_states=patches,
        ).last_hidden_state.float()
        if self.projection is None:
            return patches, states
        return patches, nn.functional.normalize(self.projection(states), dim=-1)


class TextProjection(nn.Module):
    """Text tower: the projected state of the first token from the Q-Former."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.embeddings, self.qformer = model.embeddings, model.qformer
        self.projection = model.text_projection.float()
        self.tokenizer = tokenizer
        self.context_length = min(
            tokenizer.model_max_length, model.config.qformer_config.max_position_embeddings
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embed texts that `tokens` has read as float32 (n, dimension)."""
        states = self.qformer(
            query_embeds=self.embeddings(input_ids=input_ids),
            query_length=0,
            attention_mask=attention_mask,
        ).last_hidden_state
        projected: Tensor = self.projection(states[:, 0].float())
        return projected

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Read texts as tokens and their mask, cut at the model's longest."""
        read = tokens_of(self.tokenizer, texts, "longest", self.context_length)
        return {name: each for name, each in read.items() if name != "token_type_ids"}


@dataclass(frozen=True, slots=True)
class LookedAt:
    """What matching keeps of an image: the patches' states, and the projected queries of length 1."""

    patches: Tensor
    queries: Tensor

    @property
    def nbytes(self) -> int:
        """Memory of both, in bytes."""
        return self.patches.nbytes + self.queries.nbytes


class ImageTextMatching:
    """Scores how well a text fits images, as BLIP-2's own protocol re-ranks.

    The score is the matching head's logit for a match, the mean over the queries, plus the contrastive similarity,
    the greatest over the queries (compute_sim_matrix in lavis/models/blip2_models/blip2.py of Salesforce's LAVIS).
    """

    def __init__(self, model: Any, images: QueryStates, texts: TextProjection) -> None:
        self._images, self._texts = images, texts
        self._embeddings, self._qformer = model.embeddings, model.qformer
        self._head = model.itm_head.float()

    def look(self, pixels: Tensor) -> list[Features]:
        """Look at (n, 3, h, w) once, for any number of texts."""
        patches, queries = (each.cpu() for each in self._images.look(pixels))
        # Copies, since a view would hold the whole batch in memory.
        return [LookedAt(patches[i].clone(), queries[i].clone()) for i in range(len(patches))]

    def judge(self, text: str, images: Sequence[LookedAt]) -> Tensor:
        """Score images by one text, float32 (n,)."""
        device, count = self._head.weight.device, len(images)
        patches = torch.stack([each.patches for each in images]).to(device)
        looks = torch.stack([each.queries for each in images]).to(device)
        tokens = {name: each.to(device) for name, each in self._texts.tokens([text]).items()}
        similarity = (looks @ nn.functional.normalize(self._texts(**tokens), dim=-1)[0]).amax(dim=1)
        queries = self._images.query_tokens
        length = queries.shape[1]
        states = self._qformer(
            query_embeds=self._embeddings(input_ids=tokens["input_ids"], query_embeds=queries).expand(
                count, -1, -1
            ),
            query_length=length,
            # Without masks: one text has no padding, and an image has all its patches.
            encoder_hidden_states=patches,
        ).last_hidden_state
        logits: Tensor = self._head(states[:, :length].float()).mean(dim=1)
        return logits[:, 1] + similarity


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


def is_embedding_key(key: str) -> bool:
    """Return whether a tensor of the checkpoint is outside its language model."""
    return not key.startswith(_LANGUAGE)


def locate_without_language(checkpoint: str, revision: str | None) -> Path:
    """Find the checkpoint's directory; from the hub only the shards that embeddings need are downloaded.

    Raises as `locate`.
    """
    directory = locate(checkpoint, revision, "config.json")
    index = weight_index(directory)
    if Path(checkpoint).expanduser().is_dir():
        return directory
    if index is None:
        return locate(checkpoint, revision, "model.safetensors", "pytorch_model.bin")
    shards = {shard for key, shard in weight_map(index).items() if is_embedding_key(key)}
    return download(checkpoint, revision, *SETTINGS, *shards)


def load_without_language(directory: Path, placement: Placement) -> Any:
    """Load `Blip2WithoutLanguage`, opening only the shards that hold a part of it."""
    index = weight_index(directory)
    if index is None:
        return load_model(Blip2WithoutLanguage, directory, placement)
    wanted = {key: shard for key, shard in weight_map(index).items() if is_embedding_key(key)}
    # transformers needs every shard that the index names, so it gets an index that names fewer.
    with TemporaryDirectory(prefix="blip2-") as folder:
        trimmed = Path(folder)
        (trimmed / index.name).write_text(
            json.dumps({"metadata": {}, "weight_map": wanted}), encoding="utf-8"
        )
        for name in {"config.json", *wanted.values()}:
            (trimmed / name).symlink_to((directory / name).resolve())
        return load_model(Blip2WithoutLanguage, trimmed, placement)


class CaptionWriter:
    """Writes captions with `Blip2ForConditionalGeneration`, by greedy or beam search."""

    def __init__(self, model: Any, tokenizer: Any, config: CaptionConfig) -> None:
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._start = _start_tokens(model.config, tokenizer, config.prompt)

    def __call__(self, pixels: Tensor) -> list[str]:
        """Caption (n, 3, h, w), without the prompt; a caption may be empty."""
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
            # A decoder's output begins with its input.
            written = written[:, len(self._start) :]
        texts: Sequence[str] = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]


def _start_tokens(description: Any, tokenizer: Any, prompt: str | None) -> list[int]:
    """Build the first tokens as Blip2Processor does: placeholders for the queries, then the prompt."""
    place = description.image_token_index
    if place is None:
        raise ConfigError(
            "the checkpoint's config.json lacks image_token_index; take a revision that has it, such as main"
        )
    first = getattr(description.text_config, "bos_token_id", None)
    tokens = [first] if prompt is None and first is not None else tokenizer(prompt or "").input_ids
    return [place] * int(description.num_query_tokens) + list(tokens)


def load(config: EncoderConfig) -> TorchEncoder:
    """Load either kind of checkpoint; the language model only where captions are configured."""
    placement = place(config)
    if config.captions is None:
        directory = locate_without_language(config.checkpoint, config.revision)
    else:
        directory = locate(config.checkpoint, config.revision, *_WEIGHTS)
    if _architecture(directory) == _CAPTIONING:
        towers = _load_captioning(directory, placement, config.captions)
    elif config.captions is None:
        towers = _load_retrieval(directory, placement)
    else:
        raise ConfigError(
            f"{directory} is a retrieval checkpoint and has no language model; captions need one of "
            f"architecture {_CAPTIONING}, such as Salesforce/blip2-opt-2.7b"
        )
    return TorchEncoder(config, towers, placement)


def _load_retrieval(directory: Path, placement: Placement) -> Towers:
    model = load_model(Blip2ForImageTextRetrieval, directory, placement, in_full=IN_FULL)
    image = QueryStates(model, model.vision_projection)
    text = TextProjection(model, AutoTokenizer.from_pretrained(directory))
    matching = ImageTextMatching(model, image, text)
    # One of its own, since a tokenizer may not be used while another thread uses it.
    counter = AutoTokenizer.from_pretrained(directory)
    return Towers(
        image=image,
        text=text,
        tokens=text.tokens,
        preprocessing=load_preprocessing(directory),
        # A shard that holds nothing but the head changes no vector, and so no version.
        files=version_files(directory, weight_files(directory, lambda key: not key.startswith(_HEAD))),
        architecture=_RETRIEVAL,
        pooling="mean of projected queries",
        matching=MatchingHead(
            matching.look,
            matching.judge,
            version_files(directory, weight_files(directory)),
            "mean matching logit plus best similarity",
        ),
        text_tokens=lambda each: len(counter(each, verbose=False).input_ids),
        context_length=text.context_length,
    )


def _load_captioning(directory: Path, placement: Placement, captions: CaptionConfig | None) -> Towers:
    language = None
    if captions is None:
        model = load_without_language(directory, placement)
    else:
        model = load_model(Blip2ForConditionalGeneration, directory, placement, in_full=_CAPTIONING_IN_FULL)
        files = version_files(directory, weight_files(directory))
        writer = CaptionWriter(model, AutoTokenizer.from_pretrained(directory), captions)
        language = LanguageTower(writer, files, captions.max_batch_size)
    return Towers(
        image=QueryStates(model, None),
        text=None,
        preprocessing=load_preprocessing(directory),
        files=version_files(directory, weight_files(directory, is_embedding_key)),
        architecture=_CAPTIONING,
        pooling="mean of query states",
        language=language,
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
