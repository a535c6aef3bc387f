"""A folder of images as a source, and the paths that a source or a job may name.

Each subfolder is a product. Its name is the product's id. Its images are the product's, in the order of their
names. A `metadata.json` in it may hold title, description and attributes.

Each image in the folder itself is a product too. Its name without the suffix is the id. `NAME.json` beside it may
hold the same metadata.

Where each image is a product, images are read at any depth. The id is the path, with `:` for `/`. The title is the
name without the suffix, and the folders are the description and the attribute `folder`. No metadata is read.

Hidden files and those of an operating system are ignored. The report lists all other files that are left out.
"""

import json
import os
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from catalog.sources.entries import Entry, Record
from core.errors import InvalidInput, VitrineError
from core.jobs import EvaluateArgs, ImportArgs, JobArgs
from core.sources import FolderSource, RemoteSource

_IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".apng", ".webp", ".avif", ".heic", ".heif", ".gif",
    ".bmp", ".dib", ".tif", ".tiff",
)  # fmt: skip
_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"))


def inside(folder: Path, path: str) -> Path:
    """Resolve `path`, which is absolute or relative to the folder, and follow symbolic links.

    Raises:
        InvalidInput: it leads outside of the folder, or cannot be a path.
    """
    try:
        root = folder.resolve()
        # macOS decomposes file names (NFD), but most tables hold composed ones (NFC).
        names = (path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))
        target = next((root / each for each in names if (root / each).exists()), root / path).resolve()
    except (OSError, ValueError, RuntimeError):
        raise InvalidInput(f"{path!r:.200} cannot be a path") from None
    if not target.is_relative_to(root):
        raise InvalidInput(f"{path!r:.200} leads outside of the source's folder; only files inside are read")
    return target


def check_opened(args: JobArgs, folders: Sequence[str]) -> None:
    """Refuse a job of the API that would read files outside the folders that the configuration opens.

    Raises:
        InvalidInput: a path is in none of these folders; the message names them.
    """
    if isinstance(args, ImportArgs) and not isinstance(args.source, RemoteSource):
        param, path, is_local = "args.source.path", str(Path(args.source.path).resolve()), True
    elif isinstance(args, EvaluateArgs) and args.queries is not None:
        # Only an absolute path: fsspec's URLs may lead to servers, and a relative path depends on the process.
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


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _IMAGE_ENDINGS


def _visible(folder: Path) -> list[Path]:
    """List the files that are neither hidden nor an operating system's own, by name."""
    found = (path for path in folder.iterdir() if not path.name.startswith((".", "~$")))
    return sorted(path for path in found if path.name.lower() not in _SYSTEM_FILES)


_METADATA = "metadata.json"
_MAX_METADATA_BYTES = 2**20
_SHOWN_FILES = 100
_KEYS = {"title": str, "description": str, "attributes": dict}


class Folder:
    """Implements `Source`; the order is that of the names."""

    version = ""

    def __init__(self, source: FolderSource) -> None:
        self._root = Path(source.path)
        if not self._root.is_dir():
            raise InvalidInput(f"there is no folder {source.path!r:.300}").at("source.path")
        self._names: list[str] | None = None

    def total(self) -> int:
        """Count the sub-folders and images."""
        return len(self._products())

    def report(self) -> dict[str, Any]:
        """Count the files that are left out, and list the first of them with the reason."""
        left_out: list[str] = []
        for folder in (self._root, *(self._root / name for name in self._products())):
            if folder.is_dir() and folder.resolve().is_relative_to(self._root.resolve()):
                found = _visible(folder)
                described = (
                    {path.stem for path in found if _is_image(path)} if folder is self._root else {_METADATA}
                )
                reasons = ((path, _left_out(path, described, folder is self._root)) for path in found)
                left_out += [
                    f"{path.relative_to(self._root)}: {reason}" for path, reason in reasons if reason
                ]
        return _report(left_out)

    def entries(self, after: str | None) -> Iterator[Entry]:
        """Yield the products; the position is the name."""
        last = None if after is None else json.loads(after)
        for row, name in enumerate(self._products(), start=1):
            if last is None or name > last:
                yield self._entry(row, name)

    def _products(self) -> list[str]:
        if self._names is None:
            found = _visible(self._root)
            self._names = sorted(path.name for path in found if path.is_dir() or _is_image(path))
        return self._names

    def _entry(self, row: int, name: str) -> Entry:
        path = self._root / name
        product_id = self._id(name)
        try:
            content: Record | VitrineError = self._record(path, product_id)
        except VitrineError as error:
            content = error
        except OSError as error:
            content = InvalidInput(f"{name!r:.200} cannot be read: {error.strerror}")
        # As JSON, because a name may hold bytes that no database accepts as text.
        return Entry(row, json.dumps(name), product_id, content)

    def _id(self, name: str) -> str:
        path = self._root / name
        return unicodedata.normalize("NFC", name if path.is_dir() else path.stem)

    def _record(self, path: Path, product_id: str) -> Record:
        if path.is_dir():
            # Before the folder is read: it may be a link to the outside.
            inside(self._root, path.name)
            names = [each.name for each in _visible(path) if _is_image(each)]
            if not names:
                raise InvalidInput(f"the folder {path.name!r:.200} holds no image")
            images = tuple(inside(self._root, f"{path.name}/{each}") for each in names)
            metadata = self._metadata(f"{path.name}/{_METADATA}")
        else:
            images = (inside(self._root, path.name),)
            metadata = self._metadata(path.with_suffix(".json").name)
        title, description = metadata.get("title", ""), metadata.get("description", "")
        return Record(product_id, title, description, metadata.get("attributes", {}), images)

    def _metadata(self, name: str) -> dict[str, Any]:
        path = inside(self._root, name)
        if not path.is_file():
            return {}
        if path.stat().st_size > _MAX_METADATA_BYTES:
            raise InvalidInput(f"{name!r:.200} is larger than {_MAX_METADATA_BYTES:,} bytes")
        try:
            found = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError):
            raise InvalidInput(f"{name!r:.200} is not JSON in UTF-8") from None
        if not isinstance(found, dict) or any(
            key not in _KEYS or not isinstance(value, _KEYS[key]) for key, value in found.items()
        ):
            raise InvalidInput(
                f"{name!r:.200} must hold an object with title and description (texts) and attributes "
                "(an object), and nothing else"
            )
        return found


class ImageFolder(Folder):
    """Implements `Source`: each image file at any depth is a product; the order is that of the paths."""

    def __init__(self, source: FolderSource) -> None:
        super().__init__(source)
        self._left_out: list[str] = []

    def report(self) -> dict[str, Any]:
        """Count the files that are left out, and list the first of them with the reason."""
        self._products()
        return _report(self._left_out)

    def _products(self) -> list[str]:
        if self._names is None:
            found: list[str] = []
            for folder, folders, _ in os.walk(self._root, onerror=self._cannot_be_read):
                visible = _visible(Path(folder))
                folders[:] = [path.name for path in visible if path.is_dir() and not path.is_symlink()]
                for path in visible:
                    name = path.relative_to(self._root).as_posix()
                    if path.is_dir():
                        self._left_out += [f"{name}: a link to a folder"] * path.is_symlink()
                    elif _is_image(path):
                        found.append(name)
                    else:
                        self._left_out.append(f"{name}: {_no_image_ending(path)}")
            self._names = sorted(found)
        return self._names

    def _cannot_be_read(self, error: OSError) -> None:
        folder = Path(error.filename).relative_to(self._root).as_posix()
        self._left_out.append(f"{folder}: the folder cannot be read: {error.strerror}")

    def _id(self, name: str) -> str:
        return unicodedata.normalize("NFC", name.replace("/", ":"))

    def _record(self, path: Path, product_id: str) -> Record:
        name = path.relative_to(self._root)
        image = inside(self._root, name.as_posix())
        folder, title = (unicodedata.normalize("NFC", each) for each in (name.parent.as_posix(), name.stem))
        if folder == ".":
            return Record(product_id, title, "", {}, (image,))
        return Record(product_id, title, folder.replace("/", " "), {"folder": folder}, (image,))


def _report(left_out: Sequence[str]) -> dict[str, Any]:
    # A name may hold bytes that no database accepts as text.
    shown = [each.encode(errors="replace").decode() for each in left_out[:_SHOWN_FILES]]
    return {"format": "folder", "files_left_out": len(left_out), "left_out": shown}


def _left_out(path: Path, described: Collection[str], is_root: bool) -> str | None:
    """Return the reason why a file is not read, or None if it is read."""
    if path.is_dir():
        return None if is_root else "a folder in a product's folder"
    if _is_image(path) or (path.suffix == ".json" and (path.stem in described or path.name in described)):
        return None
    return _no_image_ending(path)


def _no_image_ending(path: Path) -> str:
    return f"{path.suffix} is not the ending of an image" if path.suffix else "it has no ending of an image"
