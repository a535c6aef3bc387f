"""How well an encoder finds garments: precision at 10 over held-out pictures."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import VitrineError
from core.types import Vector
from demo.captions import caption
from demo.dataset import LabelledPictures
from demo.looks import BACKGROUNDS, Look, split_garments
from models.encoder import Encoder

_QUERIES = 1000
_BATCH = 250


def precision_table(encoder: Encoder, gallery: LabelledPictures, k: int = 10) -> dict[str, float]:
    """Precision at `k`, by kind of query; relevant is the same type, colour and pattern.

    Words are asked of encoders that read them, for trained and for never trained garments; a picture
    is never counted as found by itself.
    """
    pictures = embed_pictures(encoder, [_png(pixels) for pixels in gallery.pixels])
    table = {}
    if "text" in encoder.info.modalities:
        for kind, garments in zip(("trained", "never trained"), split_garments(), strict=True):
            looks = [Look(*garment, BACKGROUNDS[0]) for garment in garments]
            words = embed_words(encoder, [caption(look) for look in looks])
            table[f"text to image, {kind}"] = _precision(words @ pictures.T, looks, gallery.looks, k)
    chosen = np.random.default_rng(0).permutation(len(gallery))[:_QUERIES]
    scores = pictures[chosen] @ pictures.T
    scores[np.arange(len(chosen)), chosen] = -np.inf
    table["image to image"] = _precision(scores, [gallery.looks[i] for i in chosen], gallery.looks, k)
    return table


def embed_pictures(encoder: Encoder, files: Sequence[bytes]) -> NDArray[np.float32]:
    """Embed picture files through the encoder's own decoding; unit rows of shape (n, dimension)."""
    rows = []
    for start in range(0, len(files), _BATCH):
        batch = [encoder.decode(data) for data in files[start : start + _BATCH]]
        rows.append(_stacked(encoder.encode_images(batch)))
    return np.concatenate(rows)


def embed_words(encoder: Encoder, words: Sequence[str]) -> NDArray[np.float32]:
    """Embed words; unit rows of shape (n, dimension)."""
    return _stacked(encoder.encode_texts(words))


def _precision(scores: NDArray[np.float32], asked: Sequence[Look], found: Sequence[Look], k: int) -> float:
    best = np.argpartition(-scores, k, axis=1)[:, :k]
    hits = [asked[row].garment == found[place].garment for row, places in enumerate(best) for place in places]
    return float(np.mean(hits))


def _stacked(answers: Sequence[Vector | VitrineError]) -> NDArray[np.float32]:
    for answer in answers:
        if isinstance(answer, VitrineError):
            raise answer
    return np.stack([np.asarray(answer, np.float32) for answer in answers])


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
