"""An image or a file as a text: a URL, a data URI, or base64."""

import re
from contextlib import suppress
from urllib.parse import unquote_to_bytes

import pybase64

from core.errors import UnfetchableUrl

MAX_URL_LENGTH = 4096
ONLY_HTTP = "only http and https URLs are fetched"
_FETCHED = {"http", "https"}
_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
"""Of a URL (RFC 3986, 3.1); base64 has no colon."""
_PIECE_CHARS = 16 * 1024
"""Percent-encoded characters that are decoded at once."""
_PIECE_BYTES = 1024 * 1024
"""Base64 that is decoded at once: each piece holds the interpreter's lock until it is done."""
_ALPHABET = bytes.maketrans(b"-_=", b"+/!")
"""From the URL-safe alphabet of RFC 4648 to the standard one. Padding before the end becomes !, which neither has."""
_WHITESPACE = b" \t\n\v\f\r"


def is_url(text: str) -> bool:
    """Return whether a text is a URL: http(s), a data URI, or `//host/path` with a dot, which base64 never has."""
    text = text.lstrip()[:MAX_URL_LENGTH]
    known = text[:8].lower().startswith(("http://", "https://", "data:"))
    return known or (text.startswith("//") and "." in text)


def other_scheme(text: str) -> str | None:
    """Return the scheme of a URL that is never fetched, such as `file` or `ftp`; None for anything else."""
    found = _SCHEME.match(text[:MAX_URL_LENGTH])
    return None if found is None or found[1].lower() in _FETCHED else found[1]


def read_data_uri(uri: str) -> bytes:
    """Read a data URI (RFC 2397).

    Raises:
        UnfetchableUrl: it has no data, or no valid base64.
    """
    head, comma, data = uri.partition(",")
    if not comma:
        raise UnfetchableUrl("a data URI has a comma before its data: data:image/png;base64,AAAA")
    raw = _unquote(data)
    if not head.rstrip().lower().endswith(";base64"):
        return raw
    try:
        return decode_base64(raw)
    except ValueError:
        raise UnfetchableUrl("the data URI holds no valid base64") from None


def decode_base64(digits: bytes) -> bytes:
    """Decode base64 in either alphabet of RFC 4648, with or without line breaks and padding; raises ValueError."""
    # Nearly all of it is in the first alphabet, padded and in one line. That takes a tenth of the time.
    with suppress(ValueError):
        return pybase64.b64decode(digits, validate=True)
    digits = digits.rstrip(b"=" + _WHITESPACE)
    decoded, rest = bytearray(), b""
    for start in range(0, len(digits), _PIECE_BYTES):
        rest += digits[start : start + _PIECE_BYTES].translate(_ALPHABET, _WHITESPACE)
        whole = len(rest) // 4 * 4
        decoded += pybase64.b64decode(rest[:whole], validate=True)
        rest = rest[whole:]
    return bytes(decoded + pybase64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True))


def _unquote(data: str) -> bytes:
    """Decode percent-encoding piece by piece: all at once, each escape would take a hundred bytes of memory."""
    if "%" not in data:
        return data.encode()
    raw, rest = bytearray(), ""
    for start in range(0, len(data), _PIECE_CHARS):
        piece = rest + data[start : start + _PIECE_CHARS]
        # An escape that ends in the next piece is read with it.
        cut = piece.find("%", max(0, len(piece) - 2))
        cut = len(piece) if cut < 0 else cut
        raw += unquote_to_bytes(piece[:cut])
        rest = piece[cut:]
    return bytes(raw + unquote_to_bytes(rest))
