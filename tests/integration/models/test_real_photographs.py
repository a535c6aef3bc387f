"""A reduced decode of real photographs, up to 6000 pixels a side, keeps their vectors."""

from pathlib import Path

import numpy as np
import pytest

from models.config import EncoderConfig
from models.encoder import load_encoder
from tests.support.checkpoints import DEMO
from tests.support.corpora import PHOTOGRAPHS, photographs


@pytest.fixture(scope="module", params=PHOTOGRAPHS)
def files(request: pytest.FixtureRequest) -> list[Path]:
    return photographs(request.param)


@pytest.mark.parametrize("family", ["openclip", "dinov2", "timm"])
def test_a_reduced_decode_keeps_the_vector(files: list[Path], family: str) -> None:
    config = EncoderConfig(name="tested", family=family, checkpoint=str(DEMO / family), device="cpu")  # type: ignore[arg-type]
    full, reduced = (load_encoder(config.model_copy(update={"draft": draft})) for draft in (False, True))
    cosines = {}
    for path in files:
        vectors = [
            encoder.encode_images([encoder.decode(path.read_bytes())])[0] for encoder in (full, reduced)
        ]
        cosines[path.name] = float(np.dot(*vectors))  # type: ignore[arg-type]
    print(f"{family}: {len(cosines)} photographs, least cosine {min(cosines.values()):.6f}")
    assert cosines
    assert {name: cosine for name, cosine in cosines.items() if cosine < 0.999} == {}
