"""The files of the page, read once: their bytes, compressed too, and the tag of their content."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("web")
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class WebFile:
    """One file; the weak `etag` stands for both forms of its bytes."""

    data: bytes
    gzipped: bytes
    media_type: str
    etag: str


def read_web_files(folder: Path = FOLDER) -> dict[str, WebFile]:
    """Read all files of the page by their paths below the folder; what is no part of a page is left out."""
    return {
        path.relative_to(folder).as_posix(): _read(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in MEDIA_TYPES
    }


def _read(path: Path) -> WebFile:
    data = path.read_bytes()
    etag = f'W/"{hashlib.sha256(data).hexdigest()[:32]}"'
    return WebFile(data, gzip.compress(data, mtime=0), MEDIA_TYPES[path.suffix], etag)
