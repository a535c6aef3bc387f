"""Decoding of image files to RGB: formats, limits, orientation and crops.

The ingress loads this module, so it imports no model library.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from pydantic import Field

from core.concurrency import WeightedSemaphore
from core.config import Config
from core.errors import InputTooLarge, InvalidImage, Overloaded, VitrineError, expected
from core.types import Box, Cropped, ImageInput
from models.image_formats import is_srgb, open_image, to_srgb, with_end

# One thread a file, as in every other format; the pixels of a thumbnail inside are never taken for the image's.
pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)

_MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
_FORMATS = [name for name in _MEDIA_TYPES if name != "MPO"]
MEDIA_TYPES = tuple(dict.fromkeys(_MEDIA_TYPES.values()))
"""Media types of the image files that are accepted, and so of those that are served."""
_READS = "JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP and TIFF are read"
# JPEG XL is not: pillow-jxl-plugin 1.3.8 decodes when it opens a file, before the limits can be checked, on all cores
# (6 KB took 370 MB and 6 s), and its license is the GPL.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_FROM_THE_CORNER = (1, 5)
"""Orientations that keep the first column and row of a file at the upper left."""
DRAFT_MARGIN = 3
"""A draft keeps at least this multiple of the target. With 2, some vectors moved to a cosine of 0.998; 3 keeps
0.999 in all but the rarest cases and costs no more on 12 megapixels."""

_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Kinds of a JPEG's section that begins a frame; those that are left out are tables."""
_BASELINE, _JPEG_SCAN, _ADOBE, _FILL = 0xC0, 0xDA, 0xEE, 0xFF
_YCBCR = b"\x01"


@dataclass(frozen=True, slots=True)
class Decoded:
    """An RGB image, and its extent in pixels from the upper left corner.

    Where a reduced decode does not divide a side, the image ends within the last column or row.
    """

    image: Image.Image
    width: float
    height: float
    pixels: NDArray[np.uint8] | None = None
    """The same pixels, (height, width, 3), where a `ReadJpeg` has read them; Pillow then reads them when asked."""


ReadJpeg = Callable[[bytes], NDArray[np.uint8]]
"""Decodes a JPEG file to RGB, (height, width, 3); raises anything where it cannot."""
Preprocess = Callable[[Decoded], NDArray[np.uint8]]
"""Resizes and crops an image as the checkpoint was trained: uint8 (3, height, width)."""
PATIENCE_S = 30.0
"""Longest wait of an image for those that are decoded before it, in seconds."""


def crop(decoded: Decoded, box: Box) -> Decoded:
    """Cut an upright image to the box, its edges rounded to pixels; at least one pixel is left."""
    image = decoded.image
    left, right = _edges(box.x, box.width, image.width)
    top, bottom = _edges(box.y, box.height, image.height)
    width, height = min(right, decoded.width) - left, min(bottom, decoded.height) - top
    return Decoded(image.crop((left, top, right, bottom)), width, height)


def _edges(start: float, length: float, side: int) -> tuple[int, int]:
    first = min(round(start * side), side - 1)
    return first, max(first + 1, min(round((start + length) * side), side))


# Pillow's own guard raises before the header can be read, with a message that names no limit of ours;
# ImageLimits takes its place.
Image.MAX_IMAGE_PIXELS = None


_in_flight = WeightedSemaphore()
"""Pixels that this process decodes now, shared by all callers; each applies its own limit."""


class ImageLimits(Config):
    """Limits of image files, checked before anything is decoded."""

    max_bytes: int = Field(25 * 2**20, gt=0, description="Largest image file, in bytes.")
    max_pixels: int = Field(64_000_000, gt=0, description="Largest width times height, in pixels.")
    max_side: int = Field(20_000, gt=0, description="Largest width or height, in pixels.")
    max_pixels_in_flight: int = Field(
        64_000_000,
        gt=0,
        description="Pixels that one process decodes at once; further images wait. A larger image is "
        "decoded alone. A pixel takes 4 to 13 bytes meanwhile, up to 22 in WebP and AVIF.",
    )


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Media type of an image file by its content, and its upright size in pixels."""

    media_type: str
    width: int
    height: int


def inspect_image(data: bytes, limits: ImageLimits, until: float | None = None) -> ImageFacts:
    """Return the facts of an image file, after decoding it to its end.

    `until`, a time of `time.monotonic`, ends the wait for pixels in flight.

    Raises:
        InputTooLarge: the file or its pixels exceed the limits.
        InvalidImage: the bytes are no image, of an unknown format, damaged or cut off.
        Overloaded: too many pixels are in flight.
    """
    with _opened(data, limits, until) as image:
        media_type, (width, height) = _MEDIA_TYPES[str(image.format)], image.size
        # The smallest DCT scale still reads every byte of a JPEG, so it finds damage at an eighth of the cost.
        image.draft(image.mode, (1, 1))
        _load(image)
        if media_type == "image/tiff":
            width, height = image.size
        if _orientation(image) in _SIDEWAYS:
            width, height = height, width
        return ImageFacts(media_type, width, height)


@contextmanager
def decoding(
    data: bytes,
    limits: ImageLimits,
    target: int | None = None,
    box: Box | None = None,
    until: float | None = None,
    read_jpeg: ReadJpeg | None = None,
) -> Iterator[Decoded]:
    """Decode the first frame to RGB in sRGB: upright by EXIF, transparency on white, cut to the box.

    `target` is the side in pixels that the caller resizes to. With it, a larger JPEG may come back reduced by 2,
    4 or 8 (DCT scaling), its box never below three times the target. The pixels count as in flight during the
    block and are freed after it. The same thread may not decode another image in the block. `until` and what it
    raises are those of `inspect_image`. `read_jpeg` reads those JPEGs of which nothing but the pixels counts.
    """
    with _opened(data, limits, until) as image:
        pixels = _read_plain(data, image, target, read_jpeg) if read_jpeg and box is None else None
        decoded = _decode(image, target, box) if pixels is None else Decoded(image, *image.size, pixels)
        try:
            yield decoded
        finally:
            decoded.image.close()


def is_for_gpu(data: bytes, limits: ImageLimits) -> bool:
    """Say by its header whether a file is within the limits, and such that a GPU shows what a CPU does.

    That is a whole baseline JPEG in YCbCr, upright and in sRGB.
    """
    if not baseline_pixels(data):
        return False
    try:
        with _open(data, limits) as image:
            return _is_plain(image) and with_end(data) is data
    except VitrineError:
        return False


def baseline_pixels(data: bytes) -> int:
    """Return the pixels of a baseline JPEG of three components in YCbCr and one scan; 0 for any other file."""
    at, pixels = 2, 0
    while at + 4 <= len(data) and data[at] == _FILL:
        kind, body = data[at + 1], data[at + 4 : at + 24]
        if kind == _FILL:
            at += 1
            continue
        if kind == _JPEG_SCAN:
            return pixels if body[:1] == b"\x03" else 0
        if kind == _ADOBE and body.startswith(b"Adobe") and body[11:12] != _YCBCR:
            return 0
        if kind in _JPEG_FRAMES:
            # Bits, height, width and number of components, then the name, sampling and table of each. Decoders
            # differ in which of two frames counts, and limits would be checked on the other.
            if pixels or kind != _BASELINE or len(body) < 15 or body[5] != 3 or body[6:15:3] != b"\1\2\3":
                return 0
            pixels = int.from_bytes(body[1:3]) * int.from_bytes(body[3:5])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0


def decode_image(
    image: ImageInput,
    *,
    preprocess: Preprocess,
    limits: ImageLimits,
    target: int | None = None,
    read_jpeg: ReadJpeg | None = None,
) -> NDArray[np.uint8]:
    """Turn an image file, or the part in its box, into model input; `target` and `read_jpeg` as in `decoding`.

    Raises:
        Exception: what `decoding` raises, and anything else where `preprocess` meets a bug.
    """
    data, box = (image.data, image.box) if isinstance(image, Cropped) else (image, None)
    with decoding(data, limits, target, box, time.monotonic() + PATIENCE_S, read_jpeg) as decoded:
        return preprocess(decoded)


def _read_plain(
    data: bytes, image: ImageFile.ImageFile, target: int | None, read_jpeg: ReadJpeg
) -> NDArray[np.uint8] | None:
    """Read a JPEG that needs no reduction, rotation or conversion of colors; None for any other file."""
    if not _is_plain(image):
        return None
    if target is not None and _reduction(image, DRAFT_MARGIN * target, None) > 1:
        return None
    try:
        pixels = read_jpeg(data)
    except Exception:  # Pillow decides what is damaged, and says so
        return None
    return pixels if pixels.shape == (image.height, image.width, 3) else None


def _is_plain(image: ImageFile.ImageFile) -> bool:
    is_rgb = image.format == "JPEG" and image.mode == "RGB"
    return is_rgb and _orientation(image) not in _UPRIGHT and is_srgb(image)


def _decode(image: ImageFile.ImageFile, target: int | None, box: Box | None) -> Decoded:
    width, height = image.size
    reduction = 1 if target is None else _reduce(image, DRAFT_MARGIN * target, box)
    frame = image.tile[0].extents if image.format == "GIF" and image.tile else None
    _load(image)
    orientation = _orientation(image)
    try:
        upright = image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
        # The input of each step is closed: a copy takes 4 bytes a pixel.
        if upright is not image:
            image.close()
        rgb = to_srgb(upright)
        if rgb is not upright:
            upright.close()
        if frame and frame != (0, 0, *rgb.size):
            page = Image.new("RGB", rgb.size, "white")
            page.paste(rgb.crop(frame), frame)
            rgb = page
    except ValueError as error:
        raise InvalidImage(f"images in color mode {image.mode} are not supported; send RGB") from error
    if orientation in _SIDEWAYS:
        width, height = height, width
    span = rgb.size if reduction == 1 else (width / reduction, height / reduction)
    decoded = Decoded(rgb, *span)
    return decoded if box is None else crop(decoded, box)


def _reduce(image: Image.Image, target: int, box: Box | None) -> int:
    """Set a JPEG to decode at a fraction of its size, and return the divisor, 1 for any other file."""
    reduction, before = _reduction(image, target, box), image.width
    if reduction > 1:
        image.draft(image.mode, (image.width // reduction, image.height // reduction))
    return reduction if image.width < before else 1


def _reduction(image: Image.Image, target: int, box: Box | None) -> int:
    """Return the divisor of a JPEG's size that leaves the box `target` pixels a side.

    Where the divisor does not divide a side, the remainder must lie at its end.
    """
    orientation, shares = _orientation(image), (box.width, box.height) if box else (1.0, 1.0)
    if orientation in _SIDEWAYS:
        shares = (shares[1], shares[0])
    for reduction in (8, 4, 2):
        width, height = (side // reduction for side in image.size)
        is_exact = not any(side % reduction for side in image.size)
        is_enough = width * shares[0] >= target and height * shares[1] >= target
        if is_enough and (is_exact or orientation in _FROM_THE_CORNER):
            return reduction
    return 1


@contextmanager
def _opened(data: bytes, limits: ImageLimits, until: float | None) -> Iterator[ImageFile.ImageFile]:
    """Open a file; its pixels count as in flight during the block and are freed after it."""
    image = _open(data, limits)
    with _in_flight.holding(image.width * image.height, limits.max_pixels_in_flight, until):
        try:
            if image.format in ("JPEG", "MPO") and (ended := with_end(data)) is not data:
                image = open_image(ended, _FORMATS)
            yield image
        finally:
            # Also after an error, whose traceback would keep the pixels.
            image.close()


def _open(data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    if not data:
        raise InvalidImage("the image is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise InputTooLarge(f"the image has {len(data):,} bytes; the limit is {limits.max_bytes:,}")
    try:
        image = open_image(data, _FORMATS)
    except UnidentifiedImageError as error:
        raise InvalidImage(f"the bytes are not an image{_likely(data)}; {_READS}") from error
    except MemoryError:
        raise no_memory() from None
    except Exception as error:  # parsers of hostile bytes raise anything
        raise _damaged(error) from error
    width, height = image.size
    size = f"the image is {width} x {height}"
    if max(width, height) > limits.max_side:
        raise InputTooLarge(f"{size}; the limit is {limits.max_side:,} pixels a side")
    if width * height > limits.max_pixels:
        raise InputTooLarge(f"{size} = {width * height:,} pixels; the limit is {limits.max_pixels:,}")
    return image


def _load(image: Image.Image) -> None:
    try:
        image.load()
        return
    except MemoryError:
        lack: VitrineError = no_memory()
    except Exception as error:  # decoders of hostile bytes raise anything
        lack = _damaged(error)
    # Without the cause: its traceback holds the decoder and the pixels.
    raise lack


def not_prepared(error: Exception, model: str) -> VitrineError:
    """Return the error of an image for what `decode_image` raised; a bug is logged and becomes Internal."""
    return (
        no_memory() if isinstance(error, MemoryError) else expected(error, f"preparing an image for {model}")
    )


def no_memory() -> Overloaded:
    """Make the error for lack of memory, which does not blame the image."""
    return Overloaded("there is no memory left to decode this image; try again shortly")


def _damaged(error: Exception) -> InvalidImage:
    reason = str(error).lower()
    if isinstance(error, EOFError) or "truncated" in reason or "end of file" in reason:
        return InvalidImage("the image is truncated: the file ends before its last row")
    if "unsupported" in reason:
        return InvalidImage(f"the image is of a kind that is not read ({error}); save it as PNG or JPEG")
    return InvalidImage("the image is damaged or cut off: its header can be read, its pixels cannot")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata must not refuse an image whose pixels are sound
        return 1


def _likely(data: bytes) -> str:
    head = data[:512]
    if head.startswith(b"\xff\n") or head[4:8] == b"JXL ":
        return " in a format that is read here (it looks like JPEG XL)"
    if b"<svg" in head:
        return " made of pixels (it looks like SVG)"
    if head.startswith(b"%PDF"):
        return " (it looks like PDF)"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return " (it looks like text)"
    return " or their header is damaged"
