"""Pictures as callers have them: files, bytes, URLs."""

import base64
from os import PathLike
from pathlib import Path

Picture = str | bytes | PathLike[str]
"""The bytes of a picture file, its path, or its http(s) URL, which the service then fetches."""


def is_url(picture: Picture) -> bool:
    """Tell whether a picture stands behind a URL."""
    return isinstance(picture, str) and picture.lower().startswith(("http://", "https://"))


def encoded(picture: Picture) -> str:
    """Write a picture as requests hold it: a URL as it is, anything else as base64.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    if is_url(picture):
        return str(picture)
    data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    return base64.b64encode(data).decode("ascii")
