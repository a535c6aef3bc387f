"""A reduced decode of images with the statistics of photographs."""

import math
from functools import cache

import numpy as np
import pytest

from models.config import EncoderConfig
from models.encoder import Encoder, load_encoder
from models.images import ImageLimits, decoding
from tests.support.checkpoints import DEMO
from tests.support.image_files import decode_image, file, photograph, rotated_jpeg

SIZES = [(800, 600), (1201, 901), (900, 1600), (2000, 1500), (1153, 771), (569, 384), (571, 385)]
"""The last ones are reduced to three times the model's side and no more, and end within a pixel."""
LEAST = {"openclip": 0.999, "dinov2": 0.999, "dinov2_large": 0.999, "timm": 0.999, "blip2": 0.998}
"""The demo's BLIP-2 reacts to the least of changes: half its cosines are above 0.9999, few below 0.999."""


@cache
def photographs() -> list[bytes]:
    """JPEGs of all sizes; drawing them takes longer than reading them."""
    return [file(photograph(*size, seed), "JPEG", quality=90) for seed, size in enumerate(SIZES)]


@cache
def load(family: str, draft: bool) -> Encoder:
    return load_encoder(
        EncoderConfig(
            name="tested",
            family=family.partition("_")[0],  # type: ignore[arg-type]
            checkpoint=str(DEMO / family),
            device="cpu",
            draft=draft,
        )
    )


@pytest.mark.parametrize("family", LEAST)
def test_a_reduced_decode_of_a_photograph_hardly_moves_its_vector(family: str) -> None:
    cosines = []
    for data in photographs():
        full, reduced = (
            encoder.encode_images([encoder.decode(data)])[0]
            for encoder in (load(family, draft=False), load(family, draft=True))
        )
        cosines.append(float(np.asarray(full) @ np.asarray(reduced)))
    print(f"{family}: least cosine to the full decode {min(cosines):.6f}")
    assert min(cosines) >= LEAST[family]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_decode_says_where_the_image_ends(orientation: int) -> None:
    data = rotated_jpeg(photograph(569, 384, 0), orientation)
    whole = decode_image(data, ImageLimits())
    with decoding(data, ImageLimits(), 40) as decoded:
        assert decoded.image.width < whole.width or orientation not in (1, 5)
        assert decoded.width / decoded.height == whole.width / whole.height
        assert decoded.image.size == (math.ceil(decoded.width), math.ceil(decoded.height))
