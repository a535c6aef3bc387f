"""DINOv2 and DINOv2 with registers through transformers; images only.

Oquab et al., DINOv2 (arXiv 2304.07193); Darcet et al., registers (arXiv 2309.16588).
"""

from core.errors import ConfigError
from models.checkpoint import locate, read_config
from models.config import EncoderConfig
from models.device import place
from models.torch_encoder import TorchEncoder
from models.transformers import WEIGHTS, backbone

_MODEL_TYPES = ("dinov2", "dinov2_with_registers")


def load(config: EncoderConfig) -> TorchEncoder:
    """Load the backbone as family transformers does; it pools by the class token unless configured otherwise."""
    placement = place(config)
    directory = locate(config.checkpoint, config.revision, *WEIGHTS)
    model_type = read_config(directory).get("model_type")
    if model_type not in _MODEL_TYPES:
        right = " or ".join(_MODEL_TYPES)
        raise ConfigError(
            f"{directory}/config.json says model_type {model_type}; family dinov2 needs {right}"
        )
    towers = backbone(directory, str(model_type), placement, config.pooling or "cls")
    return TorchEncoder(config, towers, placement)
