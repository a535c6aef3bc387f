"""From a configuration to a loaded encoder, importing only that family's libraries."""

from importlib import import_module

from core.errors import ConfigError, ModelUnavailable, VitrineError
from models.config import EncoderConfig, Family
from models.encoder import Encoder
from models.freed_memory import keep_freed_memory

_MODULES: dict[Family, str] = {
    "openclip": "models.openclip",
    "dinov2": "models.dinov2",
    "blip2": "models.blip2",
    "timm": "models.timm",
    "fake": "models.fake",
}


def load_encoder(config: EncoderConfig) -> Encoder:
    """Load the encoder and prove that it answers.

    Raises:
        ConfigError: the checkpoint is missing, of another family, incomplete or unreadable.
        ModelUnavailable: the hub is out of reach, or the device has no room.
    """
    try:
        encoder: Encoder = import_module(_MODULES[config.family]).load(config)
        if encoder.info.device == "cpu":
            # After the weights: what loading frees goes back.
            keep_freed_memory()
        encoder.warm_up()
    except ModelUnavailable as error:
        raise ModelUnavailable(f"encoder {config.name}: {error.message}") from error
    except VitrineError as error:
        raise ConfigError(f"encoder {config.name}: {error.message}") from error
    except MemoryError as error:
        raise ModelUnavailable(
            f"encoder {config.name}: no memory left to load {config.checkpoint}"
        ) from error
    except Exception as error:  # each library fails to load in its own ways
        if type(error).__name__ == "OutOfMemoryError":
            raise ModelUnavailable(
                f"encoder {config.name}: no GPU memory left to load {config.checkpoint}"
            ) from error
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        message = (
            f"encoder {config.name}: {config.checkpoint} does not load as family {config.family} ({reason})"
        )
        raise ConfigError(message) from error
    return encoder
