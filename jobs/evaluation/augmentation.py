"""Pictures as a shopper might take them: cut, turned, blurred, squeezed, in other light, before something else."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

_LONGEST_SIDE = 640
"""Pixels; what encoders see is smaller still."""
_CHANGES_A_PICTURE = 2
_WHITE = (255, 255, 255)

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def changed(image: Image.Image, rng: np.random.Generator) -> tuple[bytes, str]:
    """Apply two changes, drawn without repetition, to an RGB picture; returns a JPEG file and their names."""
    image = image.copy()
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    chosen = sorted(rng.choice(len(CHANGES), size=_CHANGES_A_PICTURE, replace=False).tolist())
    names = [list(CHANGES)[place] for place in chosen]
    for name in names:
        image = CHANGES[name](image, rng)
    return _jpeg(image, quality=90), " + ".join(names)


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = np.sqrt(rng.uniform(0.5, 0.9))
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    return image.crop((int(left), int(top), int(left) + width, int(top) + height))


def _rotate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    angle = float(rng.uniform(5, 25)) * (1 if rng.random() < 0.5 else -1)
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=_WHITE)


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.005, 0.015)) * max(image.size)))


def _jpeg_artefacts(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.open(io.BytesIO(_jpeg(image, quality=int(rng.integers(8, 25))))).convert("RGB")


def _colour(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(rng.uniform(0.7, 1.3)))
    return image


def _background(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = (round(side * rng.uniform(1.2, 1.6)) for side in image.size)
    red, green, blue = rng.integers(0, 256, size=3).tolist()
    canvas = Image.new("RGB", (width, height), (red, green, blue))
    canvas.paste(
        image,
        (int(rng.integers(width - image.width + 1)), int(rng.integers(height - image.height + 1))),
    )
    return canvas


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


CHANGES: Mapping[str, Change] = {
    "crop": _crop,
    "rotation": _rotate,
    "background": _background,
    "colour": _colour,
    "blur": _blur,
    "compression": _jpeg_artefacts,
}
"""In the order in which they happen to a picture."""
