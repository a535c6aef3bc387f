"""Import by files: rows staged in an object store, imported by Milvus, and only then in the ledger.

The files themselves are the only record. A file that waits may have been imported by a build that was killed
then: counting its rows shows it. Rows that others have written meanwhile, or that came twice, are put anew.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from fsspec.implementations.local import LocalFileSystem

from catalog.blobs import open_files, outages_as_unavailable
from core.concurrency import batched
from core.config import FileImportConfig
from core.errors import InvalidInput, StoreUnavailable, Unavailable, VitrineError
from core.index_rows import IndexRows, RowState
from core.ports import Ledger, VectorStore
from core.types import EncoderInfo, IndexItem, VectorRow
from jobs.runner.context import JobRun
from milvus.bulk_import import MilvusImports, RowFile, read_rows

logger = logging.getLogger(__name__)

_FILE_NAME = re.compile(r"[0-9a-z-]+\.parquet")
_LOOK_S = 1.0
_outages_as_unavailable = partial(outages_as_unavailable, "the store of files for Milvus's import")


class Staging:
    """The files of one collection; each is there whole or not at all. Methods may raise Unavailable.

    Raises:
        ConfigError: the URL names a file system that is unknown or whose package is not installed.
    """

    def __init__(self, config: FileImportConfig, collection: str) -> None:
        self._files, root = open_files(config.url, "jobs.bulk.file_import.url")
        self._folder = f"{root}/{collection}"
        self._milvus_folder = f"{config.milvus_path.rstrip('/')}/{collection}"

    def put(self, file: Path, name: str) -> None:
        """Copy a local file there."""
        path = f"{self._folder}/{name}"
        # An object has its name once it is whole; a local file gets it then.
        written = f"{path}.part" if isinstance(self._files, LocalFileSystem) else path
        with _outages_as_unavailable():
            self._files.makedirs(self._folder, exist_ok=True)
            self._files.put_file(str(file), written)
            if written != path:
                self._files.mv(written, path)

    def names(self) -> list[str]:
        """List the files that wait."""
        with _outages_as_unavailable():
            try:
                # Not from a cache of the file system's: another process writes them.
                found = self._files.ls(self._folder, detail=False, refresh=True)
            except FileNotFoundError:
                return []
        names = (str(path).rpartition("/")[2] for path in found)
        return sorted(name for name in names if _FILE_NAME.fullmatch(name))

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading."""
        with _outages_as_unavailable(), self._files.open(f"{self._folder}/{name}", "rb") as file:
            yield file

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens when it is gone."""
        with _outages_as_unavailable(), suppress(FileNotFoundError):
            self._files.rm_file(f"{self._folder}/{name}")

    def milvus_path(self, name: str) -> str:
        """Name a file as Milvus does."""
        return f"{self._milvus_folder}/{name}"


class StagedRows(IndexRows):
    """Takes rows into a file; the ledger records them when Milvus has imported it, and not before."""

    def __init__(self, store: VectorStore, ledger: Ledger, file: RowFile) -> None:
        super().__init__(store, ledger)
        self._file = file

    def _put(self, _info: EncoderInfo, rows: Sequence[VectorRow]) -> None:
        self._file.append(rows)

    def settle(self, items: Mapping[str, Sequence[IndexItem]]) -> dict[tuple[str, str], RowState]:
        """Count rows in the file as done; the ledger does not have them yet."""
        return {(each, item.key): "settled" for each, some in items.items() for item in some}


@dataclass
class FileImports:
    """Imports the files that wait for one collection; killed anywhere, it is done again from the beginning."""

    run: JobRun
    milvus: MilvusImports
    staging: Staging
    rows: IndexRows
    config: FileImportConfig
    collection: str
    _caught_up: bool = False

    def import_all(self) -> int:
        """Import every file that waits, record its rows, and remove it; returns the count of rows.

        Raises:
            Conflict: the job was canceled.
            VitrineError: Milvus has refused a file; the message holds its reason.
            Unavailable: Milvus or the store of the files was away, or took too long.
        """
        names = self.staging.names()
        if names and not self._caught_up:
            # What a killed build has begun must end first: only then do counts show whether it brought their rows.
            self._wait_until_idle()
        self._caught_up = True
        recorded = 0
        for batch in batched(names, self.config.files_at_once):
            self.run.report(stage=f"importing {len(names)} files")
            first_keys = {name: self._first_keys(name) for name in batch}
            readable = [name for name, keys in first_keys.items() if keys]
            self._import(
                [name for name in readable if not self.milvus.count_rows(self.collection, first_keys[name])]
            )
            recorded += sum(self._record(name) for name in readable)
        return recorded

    def _import(self, names: Sequence[str]) -> None:
        paths = [self.staging.milvus_path(name) for name in names]
        tasks = {path: self.milvus.begin_import(self.collection, path) for path in paths}
        self._wait_until(lambda: all(self.milvus.import_state(task).ended for task in tasks.values()))
        for path, task in tasks.items():
            failure = self.milvus.import_state(task).failure
            if failure is not None:
                raise VitrineError(f"Milvus does not import {path}: {failure}")
        if tasks:
            # A call that was cut short and repeated may have begun one more.
            self._wait_until_idle()

    def _first_keys(self, name: str) -> list[str]:
        """Read the first keys of a file; one that cannot be read is removed, and has none."""
        try:
            with self.staging.opened(name) as file:
                return [row["key"] for row in next(read_rows(file), [])]
        except InvalidInput as error:
            logger.warning("%s: %s; its images are encoded again", name, error.message)
            self.staging.remove(name)
            return []

    def _record(self, name: str) -> int:
        recorded = 0
        with self.staging.opened(name) as file:
            for rows in read_rows(file):
                self.run.check()
                if self.milvus.count_rows(self.collection, [row["key"] for row in rows]) != len(rows):
                    self.milvus.put(self.collection, rows)
                # As much of the items as the ledger needs.
                items = [
                    IndexItem(row["image_id"], row["revision"], row["product_id"], "", {}) for row in rows
                ]
                self.rows.settle({self.collection: items})
                recorded += len(rows)
        self.staging.remove(name)
        return recorded

    def _wait_until_idle(self) -> None:
        self._wait_until(lambda: self.milvus.imports_under_way(self.collection) == 0)
        self.milvus.show_imported(self.collection)

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.config.wait_s
        while True:
            try:
                if is_so():
                    return
            except StoreUnavailable as error:
                logger.warning("an import cannot be followed: %s", error.message)
            if time.monotonic() > deadline:
                raise Unavailable(f"Milvus has not imported all files within {self.config.wait_s:g} s")
            self.run.pause(_LOOK_S)
