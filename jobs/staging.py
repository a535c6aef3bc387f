"""The folder in an object store where files wait until Milvus has imported them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from core.bulk import FileImportConfig
from core.errors import ConfigError, Unavailable

_NAME = re.compile(r"[0-9a-z-]+\.parquet")


class Staging:
    """The files of one collection; each is there whole or not at all.

    Raises:
        ConfigError: the URL names a file system that is unknown or whose package is not installed.
    """

    def __init__(self, config: FileImportConfig, collection: str) -> None:
        try:
            self._files, root = url_to_fs(config.url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"jobs.bulk.file_import.url cannot be opened: {error}") from error
        self._folder = f"{root.rstrip('/')}/{collection}"
        self._milvus_folder = f"{config.milvus_path.rstrip('/')}/{collection}"

    def put(self, file: Path, name: str) -> None:
        """Copy a local file there.

        Raises:
            Unavailable: the store does not take it.
        """
        with _outages_told():
            self._files.makedirs(self._folder, exist_ok=True)
            if not isinstance(self._files, LocalFileSystem):
                # An object has its name once it is whole.
                self._files.put_file(str(file), f"{self._folder}/{name}")
                return
            self._files.put_file(str(file), f"{self._folder}/{name}.part")
            self._files.mv(f"{self._folder}/{name}.part", f"{self._folder}/{name}")

    def names(self) -> list[str]:
        """List the files that wait."""
        with _outages_told():
            try:
                # Not from a cache of the file system's: another process writes them.
                found = self._files.ls(self._folder, detail=False, refresh=True)
            except FileNotFoundError:
                return []
        names = (str(path).rpartition("/")[2] for path in found)
        return sorted(name for name in names if _NAME.fullmatch(name))

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading."""
        with _outages_told(), self._files.open(f"{self._folder}/{name}", "rb") as file:
            yield file

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens when it is gone."""
        with _outages_told():
            try:
                self._files.rm_file(f"{self._folder}/{name}")
            except FileNotFoundError:
                return

    def milvus_path(self, name: str) -> str:
        """Name a file as Milvus does."""
        return f"{self._milvus_folder}/{name}"


@contextmanager
def _outages_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable("the store of files for Milvus's import does not answer") from error
