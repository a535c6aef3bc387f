"""Load an encoder from its configuration, importing only that family's libraries."""

import ctypes
import platform
from importlib import import_module

from core.errors import ConfigError, ModelUnavailable, VitrineError
from models.config import EncoderConfig, Family
from models.encoder import Encoder

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30
_MODULES: dict[Family, str] = {
    "openclip": "models.openclip",
    "dinov2": "models.dinov2",
    "blip2": "models.blip2",
    "timm": "models.timm",
    "fake": "models.fake",
}


def keep_freed_memory() -> None:
    """Let this process keep large freed blocks instead of returning them to the system (glibc's mallopt(3)).

    Otherwise each forward pass takes a page fault for every page of its activations: a tenth of the time of
    ViT-B-32 in float32 on two cores. The process stays as large as its largest batch made it.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # Where the first is refused, the second alone would keep less than the default.
        if libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES):
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def load_encoder(config: EncoderConfig) -> Encoder:
    """Load the encoder and run it once.

    Raises:
        ConfigError: the checkpoint is missing, of another family, incomplete or unreadable.
        ModelUnavailable: the hub cannot be reached, or the device lacks memory.
    """
    try:
        encoder: Encoder = import_module(_MODULES[config.family]).load(config)
        if encoder.info.device == "cpu":
            # After the weights, so that what loading frees goes back.
            keep_freed_memory()
        encoder.warm_up()
    except VitrineError as error:
        kind = ModelUnavailable if isinstance(error, ModelUnavailable) else ConfigError
        raise kind(f"encoder {config.name}: {error.message}") from error
    except Exception as error:  # each library fails in its own way
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            lack = f"encoder {config.name}: no memory left to load {config.checkpoint} on {config.device}"
            raise ModelUnavailable(lack) from error
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        message = f"{config.checkpoint} does not load as family {config.family} ({reason})"
        raise ConfigError(f"encoder {config.name}: {message}") from error
    return encoder
