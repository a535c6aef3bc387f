"""transformers' loader, made to fail where it would only warn."""

from pathlib import Path
from typing import Any

from transformers import BitsAndBytesConfig
from transformers.utils import logging

from core.errors import ConfigError
from models.placement import Placement


def load_model(model_class: Any, directory: Path, placement: Placement, in_full: tuple[str, ...] = ()) -> Any:
    """Load a model onto its device in evaluation mode; the modules named `in_full` are never made 8 bit.

    Raises:
        ConfigError: the checkpoint lacks tensors of the model, which would stay random.
    """
    logging.disable_progress_bar()
    settings: dict[str, Any] = {"dtype": placement.dtype, "output_loading_info": True}
    if placement.eight_bit:
        settings["device_map"] = {"": placement.device}
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=placement.int8_threshold,
            llm_int8_skip_modules=list(in_full),
        )
    model, report = model_class.from_pretrained(directory, **settings)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ConfigError(
            f"{directory} lacks {len(missing)} tensors of {type(model).__name__}, such as {missing[0]}"
        )
    return model.eval() if placement.eight_bit else model.to(placement.device).eval()
