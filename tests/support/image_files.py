"""Image files of every kind, made on the spot."""

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.types import Box, NewImage
from models.images import ImageLimits, decoding

ODD_SIZES = ((1, 1), (1, 200), (64, 64), (65, 64), (333, 500), (500, 333), (97, 1000), (803, 601), (30, 17))


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image with the large soft shapes that photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Noise whose amplitude falls with one over the spatial frequency (Field 1987), and hard edges.

    Color varies a third as much as brightness, as it does outdoors.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(width, height))
    planes = []
    for _ in range(4):
        spectrum = np.fft.rfft2(random.standard_normal((height, width))) / frequency
        plane = np.fft.irfft2(spectrum, (height, width))
        planes.append((plane - plane.mean()) / plane.std())
    pixels: NDArray[np.float64] = 128 + 45 * planes[0][..., None] + 15 * np.stack(planes[1:], axis=-1)
    for _ in range(6):
        x, y = int(random.integers(width * 3 // 4)), int(random.integers(height * 3 // 4))
        pixels[y : y + height // 4, x : x + width // 4] += random.integers(-90, 90, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def decode_image(
    data: bytes, limits: ImageLimits, target: int | None = None, box: Box | None = None
) -> Image.Image:
    with decoding(data, limits, target, box) as decoded:
        return decoded.image.copy()


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(*colors: str | tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> bytes:
    """A PNG file of one color, or of stripes side by side, each of the size."""
    stripes = Image.new("RGB", (size[0] * len(colors), size[1]))
    for place, color in enumerate(colors):
        stripes.paste(Image.new("RGB", size, color), (size[0] * place, 0))
    return file(stripes)


def image(color: str | tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> NewImage:
    """An image of one color, as a catalog takes it."""
    return NewImage(png(color, size=size), "image/png", *size)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def rotated_jpeg(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file(image, "JPEG", quality=95, exif=exif)


def png_section(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_file(header: bytes, pixels: bytes) -> bytes:
    """A PNG of a header and compressed rows, whatever they say."""
    sections = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_section(*section) for section in sections)


def png_bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return png_file(header, zlib.compress(b"\0" * 10_000))
