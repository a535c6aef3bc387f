"""BLIP-2 through transformers, in 8 bit through bitsandbytes where asked.

Retrieval checkpoints (Blip2ForImageTextRetrieval) embed pictures and words in one space: the mean of the
projected query states, against the projected first text token. Captioning checkpoints embed pictures by
the mean of their Q-Former states; their language model is neither loaded nor read.
Li et al., BLIP-2 (arXiv 2301.12597).
"""

import logging
from pathlib import Path

from transformers import AutoTokenizer, Blip2ForImageTextRetrieval

from core.errors import ConfigError
from models.blip2_partial import is_seeing_key, load_seeing_model, locate_seeing
from models.blip2_towers import QueryStates, TextProjection
from models.checkpoint import read_config, version_files, weight_files
from models.config import EncoderConfig
from models.hf_images import load_preprocessing
from models.hf_loading import load_model
from models.placement import Placement, place
from models.torch_encoder import TorchEncoder, Towers

_RETRIEVAL = "Blip2ForImageTextRetrieval"
_CAPTIONING = "Blip2ForConditionalGeneration"
IN_FULL = ("vision_projection", "text_projection", "itm_head")
"""Modules that never become 8 bit: activations are cast to their dtype, which must not be int8."""


def load(config: EncoderConfig) -> TorchEncoder:
    """Load what embeddings need of either kind of checkpoint."""
    # bitsandbytes warns at every product of matrices that it casts activations, which is meant here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    placement = place(config)
    directory = locate_seeing(config.checkpoint, config.revision)
    architecture = _architecture(directory)
    load_towers = _load_retrieval if architecture == _RETRIEVAL else _load_captioning
    return TorchEncoder(config, load_towers(directory, placement), placement)


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


def _load_captioning(directory: Path, placement: Placement) -> Towers:
    model = load_seeing_model(directory, placement)
    return Towers(
        image=QueryStates(model, None).eval(),
        text=None,
        preprocessing=load_preprocessing(directory),
        files=version_files(directory, weight_files(directory, is_seeing_key)),
        architecture=_CAPTIONING,
        pooling="mean of query states",
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
