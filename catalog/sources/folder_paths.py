"""Paths that may be named: by a source those inside of its folder, by a caller of the API those that are open."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core.errors import InvalidInput
from core.jobs import EvaluateArgs, ImportArgs, JobArgs
from core.sources import RemoteSource

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


def check_opened(args: JobArgs, folders: Sequence[str]) -> None:
    """Refuse a job of the API that is to read files elsewhere than in the folders that the configuration opens.

    Raises:
        InvalidInput: a path lies in none of them; the message names them.
    """
    if isinstance(args, ImportArgs) and not isinstance(args.source, RemoteSource):
        param, path, is_local = "args.source.path", str(Path(args.source.path).resolve()), True
    elif isinstance(args, EvaluateArgs) and args.queries is not None:
        # A whole path only: what fsspec knows leads to servers too, and a relative one to where this process is.
        param, path = "args.queries", args.queries
        is_local = Path(path).is_absolute() and "::" not in path
    else:
        return
    for folder in folders if is_local else ():
        with suppress(InvalidInput):
            inside(Path(folder), path)
            return
    raise InvalidInput(
        "the configuration opens no folder that holds this path to jobs of the API: add it to "
        f"jobs.imports.folders, or start the job from a shell; open folders: {', '.join(folders) or 'none'}"
    ).at(param)


def is_picture(path: Path) -> bool:
    """Tell by its name whether a file is taken as a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
