"""Where and in which number format a model runs."""

from dataclasses import dataclass

import torch

from core.errors import ConfigError
from models.config import EncoderConfig

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.bfloat16}
"""With int8 the matrices are 8 bit, and this is what stays around them."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A device and the dtype of activations; with `eight_bit` the large matrices are int8.

    Columns with activations beyond a positive `int8_threshold` are multiplied in `dtype` all the same.
    """

    device: torch.device
    dtype: torch.dtype
    eight_bit: bool
    int8_threshold: float


def place(config: EncoderConfig) -> Placement:
    """Choose the device and dtype of the model, and set the CPU threads of this process.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise ConfigError(
            f"encoder {config.name} is set to device cuda, but this host shows no GPU; use auto or cpu"
        )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = "cuda" if has_gpu and config.device != "cpu" else "cpu"
    return Placement(
        torch.device(device), _DTYPES[config.precision], config.precision == "int8", config.int8_threshold
    )
