"""Paths that a source may name: those inside of its folder."""

from pathlib import Path

from core.errors import InvalidInput

PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
)  # fmt: skip


def inside(folder: Path, path: str) -> Path:
    """Return the file that `path`, relative to the folder or absolute, leads to, symbolic links followed.

    Raises:
        InvalidInput: it leads outside of the folder, or cannot be a path.
    """
    try:
        root = folder.resolve()
        target = (root / path).resolve()
    except (OSError, ValueError, RuntimeError):
        raise InvalidInput(f"{path!r:.200} cannot be a path") from None
    if not target.is_relative_to(root):
        raise InvalidInput(f"{path!r:.200} leads outside of the source's folder; only files inside are read")
    return target


def is_picture(path: Path) -> bool:
    """Tell by its name whether a file is taken as a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
