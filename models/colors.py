"""Colors of decoded images: sRGB by their ICC profile, on white, 8 bits per channel."""

import io
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

COLORS = "sRGB, relative colorimetric, black point compensated"
"""Color space of all pixels, and the conversion to it; part of every fingerprint."""
_MOST_PROFILE_BYTES = 4 * 2**20
_GRAYS = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
_WHITE = (255, 255, 255, 255)
_DEEP_MODES = ("I", "F")
_USUAL_WHITES = (1.0, 255.0, 65_535.0)
_STRIP_ROWS = 256
_SAMPLE = Image.fromarray((np.indices((18, 18, 18)).T * 15).reshape(72, 81, 3).astype(np.uint8))
"""Colors spread over all of RGB."""


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to sRGB, by its ICC profile if it has one; may change the image in place.

    A profile is ignored if it is damaged, too large or for another color space than the image's.
    """
    transform = _transform(_profile(image), image.mode)
    if transform is None:
        return to_rgb(image)
    pixels = image if image.mode in ("CMYK", "LAB") else to_rgb(image)
    if transform.input_mode == "L":
        pixels = pixels.getchannel(0)
    return ImageCms.applyTransform(pixels, transform, inPlace=pixels.mode == "RGB") or pixels


def is_srgb(image: Image.Image) -> bool:
    """Return whether the colors of an RGB image, which need not be loaded, are sRGB as they are."""
    return _transform(_profile(image), image.mode) is None


def _profile(image: Image.Image) -> bytes:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and len(profile) <= _MOST_PROFILE_BYTES else b""


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Make the transform to sRGB for images of a mode; None where there is nothing to convert."""
    if mode == "LAB":
        return _to_srgb(ImageCms.createProfile("LAB"), inMode="LAB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space
        if space == "GRAY" and mode in _GRAYS:
            return _to_srgb(source, inMode="L")
        if space == mode == "CMYK":
            return _to_srgb(source, inMode="CMYK")
        if space == "RGB " and mode != "CMYK":
            transform = _to_srgb(source, inMode="RGB")
            # Most profiles are sRGB itself. To apply one takes as long as decoding, and changes few colors by 1.
            moved = ImageChops.difference(_SAMPLE, ImageCms.applyTransform(_SAMPLE, transform) or _SAMPLE)
            return transform if moved.point(lambda level: level > 1).getbbox() else None
    except Exception:  # parsers of hostile bytes raise anything
        return None
    return None


_to_srgb = partial(
    ImageCms.buildTransform,
    outputProfile=ImageCms.createProfile("sRGB"),
    outMode="RGB",
    renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to RGB: transparency becomes white, and grays of more than 8 bits are scaled.

    Palettes, CMYK, YCbCr, 1-bit and 8-bit gray become RGB by Pillow's own rules.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith(_DEEP_MODES):
        white = _white_point(image)
        return _by_strips(image, lambda strip: _eight_bits(strip, white).convert("RGB"))
    if image.has_transparency_data:
        return _by_strips(image, lambda strip: _on_white(strip.convert("RGBA")))
    return image.convert("RGB")


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert strip by strip, because intermediate images take up to 20 bytes per pixel."""
    page = Image.new("RGB", image.size)
    for strip, place in _strips(image):
        page.paste(convert(strip), place)
    return page


def _strips(image: Image.Image) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    for top in range(0, image.height, _STRIP_ROWS):
        yield image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height))), (0, top)


def _on_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGBA", image.size, _WHITE)
    return Image.alpha_composite(page, image).convert("RGB")


def _eight_bits(image: Image.Image, white: float) -> Image.Image:
    scaled = np.clip(_values(image), 0.0, None) * (255.0 / white)
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _values(image: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _white_point(image: Image.Image) -> float:
    """Return the value of white: 65,535 for 16 bits, else the end of the smallest usual range that fits.

    32-bit and float files do not store this value.
    """
    if image.mode.startswith("I;16"):
        return 65_535.0
    highest = max(float(_values(strip).max()) for strip, _ in _strips(image))
    usual = _USUAL_WHITES if image.mode == "F" else _USUAL_WHITES[1:]
    return next((white for white in usual if highest <= white), highest)
