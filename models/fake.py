"""Encoder without weights, for tests: a color histogram for images, and texts in the same space.

It is deterministic, fast and needs no torch. A text that names a color finds images of that color. A caption
names the color nearest to the image's mean, and a text that names it too matches the image.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from core.types import EncoderInfo
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels, fingerprint
from models.images import Decoded, Preprocess
from models.matching import Features

_SIDE = 16
_LEVELS = 4
_COLORS = _LEVELS**3
_WORDS = 32
_DIMENSION = _COLORS + _WORDS
_WORD_WEIGHT = 0.1


class FakeEncoder(Encoder):
    """64 numbers for the share of each coarse color, 32 for other words; a token is a word."""

    context_length = 77

    def preprocess(self, image: Decoded) -> Pixels:
        """Squash to 16 x 16."""
        return _squashed(image)

    def preprocessor(self) -> Preprocess:
        """Return what `preprocess` does, without the model."""
        return _squashed

    def forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Count coarse colors; float32 (n, 96)."""
        bins = (batch.astype(np.int64) * _LEVELS) // 256
        codes = (bins[:, 0] * _LEVELS + bins[:, 1]) * _LEVELS + bins[:, 2]
        rows = [np.bincount(code.ravel(), minlength=_DIMENSION) for code in codes]
        return np.asarray(np.stack(rows) / _SIDE**2, dtype=np.float32)

    def forward_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed color words like images of that color, other words by their hash; float32 (n, 96)."""
        return np.stack([_text(text.lower().split()[: self.context_length]) for text in texts])

    def text_tokens(self, text: str) -> int:
        """Count words."""
        return len(text.split())

    def write(self, batch: NDArray[np.uint8]) -> list[str]:
        """Name the nearest color of CSS, a text an image."""
        return [f"a {_color(mean)} thing" for mean in batch.mean(axis=(2, 3))]

    def look(self, batch: NDArray[np.uint8]) -> list[Features]:
        """Compute the mean color of each image."""
        return list(batch.mean(axis=(2, 3)))

    def judge(self, text: str, features: Sequence[Any]) -> list[float]:
        """Score 1 where the text names the color nearest to the mean, else 0."""
        words = text.lower().split()
        return [float(_color(mean) in words) for mean in features]


def load(config: EncoderConfig) -> FakeEncoder:
    """Make an encoder; a checkpoint only changes the fingerprint."""
    settings = {"family": "fake", "checkpoint": config.checkpoint, "dimension": _DIMENSION}
    info = EncoderInfo(
        name=config.name,
        family=config.family,
        checkpoint=config.checkpoint,
        fingerprint=fingerprint((), settings),
        dimension=_DIMENSION,
        modalities=("image", "text"),
        precision=config.precision,
        device="cpu",
        captions=fingerprint((), settings | {"captions": "color"}) if config.captions else None,
        matching=fingerprint((), settings | {"matching": "color"}),
    )
    return FakeEncoder(info, config.limits, _SIDE if config.draft else None)


def _squashed(image: Decoded) -> Pixels:
    return np.asarray(image.image.resize((_SIDE, _SIDE), Image.Resampling.BOX)).transpose(2, 0, 1)


def _color(mean: NDArray[np.float64]) -> str:
    names = list(ImageColor.colormap)
    colors = np.array([ImageColor.getrgb(name)[:3] for name in names])
    return names[int(np.square(colors - mean).sum(axis=1).argmin())]


def _text(words: Sequence[str]) -> NDArray[np.float32]:
    row = np.zeros(_DIMENSION, np.float32)
    for word in words or [""]:
        if word in ImageColor.colormap:
            red, green, blue = (level * _LEVELS // 256 for level in ImageColor.getrgb(word)[:3])
            row[(red * _LEVELS + green) * _LEVELS + blue] += 1.0
        else:
            digest = hashlib.sha256(word.encode()).digest()
            row[_COLORS + digest[0] % _WORDS] += _WORD_WEIGHT
    return row
