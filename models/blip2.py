"""BLIP-2 through transformers, in 8 bit through bitsandbytes where asked.

Retrieval checkpoints (Blip2ForImageTextRetrieval) embed pictures and words in one space: the mean of the
projected query states, against the projected first text token. Captioning checkpoints embed pictures by
the mean of their Q-Former states; their language model is neither loaded nor read unless captions are
asked for.
Li et al., BLIP-2 (arXiv 2301.12597).
"""

import logging
from pathlib import Path

from transformers import AutoTokenizer, Blip2ForImageTextRetrieval

from core.errors import ConfigError
from models.blip2_language import load_whole_model, load_writer, locate_whole
from models.blip2_partial import is_seeing_key, load_seeing_model, locate_seeing
from models.blip2_towers import QueryStates, TextProjection
from models.checkpoint import read_config, version_files, weight_files
from models.config import CaptionConfig, EncoderConfig
from models.hf_images import load_preprocessing
from models.hf_loading import load_model
from models.placement import Placement, place
from models.torch_encoder import TorchEncoder
from models.towers import Towers, Writing

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
