"""The demo's trained OpenCLIP weights find garments by words among pictures that they never saw."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.dataset import held_out_pictures
from demo.looks import COLOURS, TYPES
from models.config import EncoderConfig
from models.registry import load_encoder

WEIGHTS = Path(__file__).parents[2] / "demo" / "weights"
K = 10


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def test_text_search_reaches_precision_at_10_of_0_8(capsys: pytest.CaptureFixture[str]) -> None:
    pictures = held_out_pictures(a_garment=3, seed=1)
    encoder = load_encoder(
        EncoderConfig(name="openclip", family="openclip", checkpoint=str(WEIGHTS / "openclip"), threads=2)
    )
    decoded = [encoder.decode(jpeg(pixels)) for pixels in pictures.pixels]
    batches = (decoded[start : start + 256] for start in range(0, len(decoded), 256))
    gallery = np.stack([vector for batch in batches for vector in encoder.encode_images(batch)])
    wanted = [(colour, kind) for colour in COLOURS for kind in TYPES]
    texts = np.stack(encoder.encode_texts([f"{colour} {kind}" for colour, kind in wanted]))
    best = np.argsort(-(texts @ gallery.T), axis=1)[:, :K]
    looks = [(look.colour, look.type) for look in pictures.looks]
    precision = np.mean([[looks[i] == want for i in row] for want, row in zip(wanted, best, strict=True)])
    with capsys.disabled():
        print(f"\nPrecision@{K} of {len(wanted)} queries over {len(looks)} held-out renders: {precision:.3f}")
    assert precision >= 0.8
