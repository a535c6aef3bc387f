"""Any colour mode of Pillow to plain RGB, the way an eye on a white page would see it."""

import numpy as np
from PIL import Image

_WHITE = (255, 255, 255, 255)
_DEEP_MODES = ("I", "F")
_USUAL_WHITES = (1.0, 255.0, 65_535.0)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: transparency on white, deep greys scaled instead of clipped.

    The image must be loaded. Palettes, CMYK, YCbCr, 1-bit and grey become RGB by Pillow's own rules.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith(_DEEP_MODES):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGBA", image.size, _WHITE)
    return Image.alpha_composite(page, image).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    scaled = np.clip(values, 0.0, None) * (255.0 / _white_point(image.mode, values))
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _white_point(mode: str, values: np.ndarray) -> float:
    """The value that means white: by the mode for 16 bit, else the least usual range that holds them.

    32-bit and float files do not say where white is.
    """
    if mode.startswith("I;16"):
        return 65_535.0
    highest = float(values.max())
    usual = _USUAL_WHITES if mode == "F" else _USUAL_WHITES[1:]
    return next((white for white in usual if highest <= white), highest)
