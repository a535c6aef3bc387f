"""Image files as the benchmarks send them."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, slots=True)
class FromMemory:
    """Gives the same pixels for any image file: a decoder that costs nothing."""

    pixels: NDArray[np.uint8]

    def __call__(self, _image: object) -> NDArray[np.uint8]:
        """Return the pixels."""
        return self.pixels


def small_jpegs(count: int) -> list[bytes]:
    """Make distinct JPEG files of 224 x 224 pixels and about 100 KB each."""
    return [_jpeg(224, 224, seed, grain=40, quality=97) for seed in range(count)]


def product_jpegs(count: int) -> list[bytes]:
    """Make distinct JPEG files of 500 x 500 pixels and about 80 KB each."""
    return [_jpeg(500, 500, seed, grain=7, quality=90) for seed in range(count)]


def shop_jpeg() -> bytes:
    """Make a JPEG file as shops keep them: 1000 x 1000 pixels, about 200 KB."""
    return _jpeg(1000, 1000, seed=0, grain=8, quality=87)


def camera_jpeg() -> bytes:
    """Make a JPEG file of 12 megapixels, 4000 x 3000, with the detail and size of a camera's."""
    return _jpeg(4000, 3000, seed=0, grain=8, quality=90)


def _jpeg(width: int, height: int, seed: int, grain: int, quality: int) -> bytes:
    """Soft shapes under grain, which is what makes a photograph's file large."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    shapes = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(shapes, np.int16) + random.integers(-grain, grain + 1, (height, width, 3))
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
        stream, "JPEG", quality=quality, subsampling="4:4:4"
    )
    return stream.getvalue()
