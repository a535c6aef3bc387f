"""Image files by the sha256 of their bytes, on any file system that fsspec knows."""

import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from core.errors import ConfigError, InvalidInput, NotFound, Unavailable

OWNER = "owner"
"""Name of the file that holds the id of the catalog to which the store belongs."""
ABANDONED_S = 600.0
"""Age at which a half-written file counts as abandoned, in seconds; no write takes that long."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def write_durably(path: str, data: bytes) -> None:
    """Write `path` unless it holds the same bytes; a crash leaves a complete file or none.

    After the return the file survives a loss of power, whoever wrote it.

    Raises:
        OSError: the file system refused.
    """
    target = Path(path)
    missing = [level for level in target.parents if not level.is_dir()]
    target.parent.mkdir(parents=True, exist_ok=True)
    # A new folder is durable once its parent is synced.
    for level in reversed(missing):
        _sync(level.parent)
    if not _holds(target, data):
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    # Also for a file that existed: its writer may have been killed between the rename and this.
    _sync(target.parent)


def remove_durably(path: str) -> None:
    """Delete a file so that no loss of power restores it; nothing happens when there is none.

    Raises:
        OSError: the file system refused.
    """
    target = Path(path)
    target.unlink(missing_ok=True)
    # Also for a file that is gone: its remover may have been killed before this.
    if target.parent.is_dir():
        _sync(target.parent)


def sync_file(path: str) -> None:
    """Sync a file and its name to disk, whoever wrote it.

    Raises:
        OSError: the file system refused.
    """
    _sync(Path(path))
    _sync(Path(path).parent)


def _holds(path: Path, data: bytes) -> bool:
    # A disk may flip bits, which keeps the size, or fail to read.
    try:
        return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _sync(path: Path) -> None:
    """Sync a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def outages_as_unavailable(what: str = "the store of image files") -> Iterator[None]:
    """Raise Unavailable where a file system fails."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{what} does not answer; try again") from error


def open_files(url: str, what: str) -> tuple[AbstractFileSystem, str]:
    """Open the file system of a URL, and the path there without a slash at its end; may raise ConfigError."""
    try:
        files, root = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{what} cannot be opened: {error}") from error
    return files, root.rstrip("/")


def write_file(files: AbstractFileSystem, path: str, data: bytes) -> None:
    """Write a file that is complete and durable, or not there.

    Raises:
        OSError: the file system refused.
    """
    if isinstance(files, LocalFileSystem):
        write_durably(path, data)
    else:
        files.pipe_file(path, data)


class FsspecBlobs:
    """A content-addressed store: `ab/cd/abcd…`, each file written once, and again only where it was damaged.

    On a local file system a file is complete and durable before it gets its name. An object store guarantees the
    same for a single put. A killed writer can leave a `.tmp` file that nothing reads; `remove_abandoned` removes
    it. Every method may raise Unavailable.

    Raises:
        ConfigError: the URL names a file system that is unknown or whose package is not installed.
    """

    def __init__(self, url: str) -> None:
        self._files, self._root = open_files(url, "blobs_url")
        self._is_local = isinstance(self._files, LocalFileSystem)
        self._owner_path = f"{self._root}/{OWNER}"

    def put(self, data: bytes) -> str:
        """Store durably and return the lower-case hex sha256; storing the same bytes again writes nothing."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._path(sha256)
        with outages_as_unavailable():
            # A local file is compared where it is written.
            if self._is_local or self.size(sha256) != len(data) or self._files.cat_file(path) != data:
                write_file(self._files, path, data)
        return sha256

    def get(self, sha256: str) -> bytes:
        """Read a file.

        Raises:
            InvalidInput: the argument is not 64 lower-case hex digits.
            NotFound: there is no such file.
        """
        if not _SHA256.fullmatch(sha256):
            raise InvalidInput("a sha256 is 64 lower-case hex digits").at("sha256")
        if (data := self.find(sha256)) is None:
            raise NotFound(f"there is no image file {sha256}")
        return data

    def find(self, sha256: str) -> bytes | None:
        """Read a file; None where there is none."""
        with outages_as_unavailable(), suppress(FileNotFoundError):
            data: bytes = self._files.cat_file(self._path(sha256))
            return data
        return None

    def remove(self, sha256: str) -> None:
        """Delete a file for good; nothing happens when there is none."""
        path = self._path(sha256)
        with outages_as_unavailable():
            if self._is_local:
                remove_durably(path)
                return
            with suppress(FileNotFoundError):
                self._files.rm_file(path)

    def remove_abandoned(self, prefix: str, age_s: float = ABANDONED_S) -> int:
        """Delete half-written files of killed writers under these two hex digits; returns their number."""
        if not self._is_local:
            return 0
        number = 0
        with outages_as_unavailable():
            for path in Path(self._root, prefix).glob("*/.*.tmp"):
                # Its writer may finish meanwhile. A slow writer that loses it fails, and its caller may retry.
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < time.time() - age_s:
                        remove_durably(str(path))
                        number += 1
        return number

    def size(self, sha256: str) -> int | None:
        """Look up the bytes of a file, without reading it; None where there is none."""
        path = self._path(sha256)
        with outages_as_unavailable():
            # Another process may have removed what this one has cached.
            self._files.invalidate_cache(path.rpartition("/")[0])
            return self._size(path)

    def sizes(self, prefix: str) -> dict[str, int]:
        """List the files whose names begin with these two hex digits, with their bytes."""
        folder = f"{self._root}/{prefix}"
        with outages_as_unavailable():
            self._files.invalidate_cache()
            found = self._files.find(folder, detail=True)
        names = {path.rpartition("/")[2]: int(info["size"]) for path, info in found.items()}
        return {name: size for name, size in names.items() if _SHA256.fullmatch(name)}

    def owner(self) -> str | None:
        """Read the id of the catalog that owns the files; None while there is none."""
        with outages_as_unavailable():
            try:
                return str(self._files.cat_file(self._owner_path).decode(errors="replace").strip())
            except FileNotFoundError:
                return None

    def set_owner(self, catalog_id: str) -> None:
        """Record the id of the catalog that owns the files."""
        with outages_as_unavailable():
            write_file(self._files, self._owner_path, catalog_id.encode())

    def _path(self, sha256: str) -> str:
        # Two levels of 256 folders keep each folder small up to some ten million files.
        return f"{self._root}/{sha256[:2]}/{sha256[2:4]}/{sha256}"

    def _size(self, path: str) -> int | None:
        try:
            info: dict[str, Any] = self._files.info(path)
        except FileNotFoundError:
            return None
        return int(info["size"])
