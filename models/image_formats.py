"""Image files: metadata that may be damaged, and colors of all kinds.

Files are opened as in a browser: metadata that is damaged or too large is ignored. PNG, WebP and JPEG files consist
of sections: a kind, a length and a body.

Colors become sRGB by the file's ICC profile, on white, 8 bits per channel.
"""

import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms, ImageFile

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_PIXELS = (b"IHDR", b"PLTE")
_PNG_METADATA = (b"tRNS", b"iCCP", b"eXIf")
_WEBP_SECTIONS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF")
_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_JPEG_METADATA = (*range(0xE0, 0xF0), 0xFE)
_JPEG_ADOBE, _ADOBE_BYTES = 0xEE, 16
"""Kind and smallest size of the section that says how inks and colors are stored."""

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


def open_image(data: bytes, formats: list[str]) -> ImageFile.ImageFile:
    """Open a file without decoding its pixels.

    Raises:
        Exception: any error of `PIL.Image.open`.
    """
    is_png, is_webp = data.startswith(_PNG), data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    try:
        return Image.open(io.BytesIO(_png(data, _PNG_METADATA) if is_png else data), formats=formats)
    except Exception:  # parsers of hostile bytes raise anything
        if not is_png and not is_webp and not data.startswith(_JPEG):
            raise
    plain = _png(data, ()) if is_png else _webp(data) if is_webp else _jpeg(data)
    return Image.open(io.BytesIO(plain), formats=formats)


def _png(data: bytes, metadata: Sequence[bytes]) -> bytes:
    """Rewrite a PNG: all pixels in one section, the intact metadata of these kinds, and an end."""
    kept: dict[bytes, memoryview] = {}
    view, at, pixels = memoryview(data), len(_PNG), bytearray()
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        section = view[at : at + 12 + length]
        at += 12 + length
        if kind == b"IDAT":
            # Pillow would take minutes to read millions of empty sections. A truncated section ends with the file.
            pixels += section[8 : 8 + length]
            # Behind the pixels, only the orientation counts.
            metadata = [name for name in metadata if name == b"eXIf"]
        elif kind in _PNG_PIXELS or (
            kind in metadata and section[-4:] == struct.pack(">I", zlib.crc32(section[4:-4]))
        ):
            # A file has at most one of each.
            kept.setdefault(kind, section)
    start_of_pixels, no_checksum = struct.pack(">I4s", len(pixels), b"IDAT"), bytes(4)
    return b"".join((_PNG, *kept.values(), start_of_pixels, pixels, no_checksum, _PNG_END))


def _webp(data: bytes) -> bytes:
    """Rewrite a WebP: the complete sections of known kinds, and a size that fits them."""
    kept, at = bytearray(b"WEBP"), 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        section = data[at : at + 8 + length]
        at += 8 + length + length % 2
        if kind in _WEBP_SECTIONS and len(section) == 8 + length:
            kept += section + bytes(length % 2)
    return struct.pack("<4sI", b"RIFF", len(kept)) + kept


def _jpeg(data: bytes) -> bytes:
    """Rewrite a JPEG without metadata, except for the orientation and the kind of colors."""
    kept, at = [_JPEG], len(_JPEG)
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != _JPEG_SCAN and at + 4 <= len(data):
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        section = data[at : at + 2 + length]
        is_adobe = kind == _JPEG_ADOBE and len(section) >= _ADOBE_BYTES
        if kind not in _JPEG_METADATA or is_adobe or section[4:10] == b"Exif\0\0":
            kept.append(section)
        at += 2 + length
    return b"".join((*kept, data[at:]))


def with_end(data: bytes) -> bytes:
    """Add the end marker to a JPEG that lacks nothing else; return any other file unchanged.

    Bytes after the last row change no pixel, but bytes in place of a missing row do. So if two different ends
    decode to different pixels, rows are missing.
    """
    if data.endswith(_JPEG_END) or data.find(_JPEG_END, data.rfind(_JPEG_SCAN)) >= 0:
        return data
    try:
        shown = {_digest_of_pixels(data + filler + _JPEG_END) for filler in (b"", bytes(range(255)) * 64)}
    except Exception:  # decoders of hostile bytes raise anything
        return data
    return data + _JPEG_END if len(shown) == 1 else data


def _digest_of_pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return hashlib.sha256(image.tobytes()).digest()


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
