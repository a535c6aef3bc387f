"""Opening of image files despite bad metadata: as in a browser, metadata that is damaged or too large is ignored.

PNG, WebP and JPEG files consist of sections: a kind, a length and a body.
"""

import hashlib
import io
import struct
import zlib
from collections.abc import Sequence

from PIL import Image, ImageFile

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_PIXELS = (b"IHDR", b"PLTE")
_PNG_METADATA = (b"tRNS", b"iCCP", b"eXIf")
_WEBP_SECTIONS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF")
_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_JPEG_METADATA = (*range(0xE0, 0xF0), 0xFE)
_JPEG_ADOBE, _ADOBE_BYTES = 0xEE, 16
"""Kind and smallest size of the section that says how inks and colors are stored."""


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
