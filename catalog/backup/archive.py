"""Where backups lie, on any file system that fsspec knows.

pictures/ab/cd/abcd…     picture files by content, shared by all snapshots and never written twice
reports/ab/cd/abcd…      what jobs have written, likewise
snapshots/ID/catalog     the database, as SQLite's file or pg_dump's custom format
snapshots/ID/pictures.txt, reports.txt   which of those files it refers to
snapshots/ID/snapshot.json   what it is; written last, so that a backup that was cut short is none
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalog.backup.listing import PICTURES, REPORTS
from catalog.blobs import FsspecBlobs
from catalog.durable import sync_file
from core.errors import ConfigError, NotFound, Unavailable

DUMP = "catalog"
_PARTS = (DUMP, PICTURES, REPORTS)
_COMPLETE = "snapshot.json"
_NAME = "%Y%m%dT%H%M%S%fZ"


class Snapshot(BaseModel):
    """One complete backup of the database."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(description="When the backup began, in UTC, as 20260131T031700123456Z.")
    database: Literal["sqlite", "postgresql"] = Field(description="Which database the dump is of.")
    tables: str = Field(description="The migration that its tables were at.")
    sha256: str = Field(description="Of the dump.")
    bytes: int = Field(description="Of the dump.")
    products: int = Field(description="Products in it.")
    pictures: int = Field(description="Pictures in it.")


class Archive:
    """The backups at a URL; every method may raise Unavailable.

    Raises:
        ConfigError: the URL names a file system that is unknown or whose package is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._files, root = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"the place of the backups cannot be opened: {error}") from error
        self._root = root.rstrip("/")
        self._is_local = isinstance(self._files, LocalFileSystem)
        places = [f"{url.rstrip('/')}/{name}" for name in ("pictures", "reports")]
        self.stores = (FsspecBlobs(places[0]), FsspecBlobs(places[1]))
        """Picture files, and what jobs have written."""

    @staticmethod
    def name(now: datetime) -> str:
        """Name a snapshot by its time."""
        return now.strftime(_NAME)

    def snapshots(self) -> list[Snapshot]:
        """List the complete snapshots, oldest first."""
        with _outages_told():
            self._files.invalidate_cache()
            found = self._files.glob(f"{self._root}/snapshots/*/{_COMPLETE}")
            texts = [self._files.cat_file(path) for path in sorted(found)]
        try:
            return [Snapshot.model_validate_json(text) for text in texts]
        except ValidationError:
            raise ConfigError("a snapshot.json is not what this version of Vitrine writes") from None

    def find(self, snapshot: str | None) -> Snapshot:
        """Choose a snapshot by its id, or the latest.

        Raises:
            NotFound: there is no such complete snapshot.
        """
        known = {each.id: each for each in self.snapshots()}
        if not known:
            raise NotFound("there is no complete backup at this place")
        if snapshot is not None and snapshot not in known:
            raise NotFound(f"there is no backup {snapshot!r:.40}; the latest is {max(known)}")
        return known[snapshot or max(known)]

    def keep(self, snapshot: Snapshot, folder: Path) -> None:
        """Store the dump and the lists that lie in a local folder, then say that the snapshot is complete."""
        place = f"{self._root}/snapshots/{snapshot.id}"
        with _outages_told():
            if self._is_local:
                # An object store has no folders, and might make a bucket instead.
                self._files.makedirs(place, exist_ok=True)
            for name in _PARTS:
                self._files.put_file(str(folder / name), f"{place}/{name}")
                self._sync(f"{place}/{name}")
            self._files.pipe_file(f"{place}/{_COMPLETE}", snapshot.model_dump_json(indent=2).encode())
            self._sync(f"{place}/{_COMPLETE}")

    def fetch(self, snapshot: Snapshot, folder: Path) -> None:
        """Bring the dump and the lists to a local folder.

        Raises:
            Unavailable: the dump is not what was stored.
        """
        with _outages_told():
            for name in _PARTS:
                self._files.get_file(f"{self._root}/snapshots/{snapshot.id}/{name}", str(folder / name))
        if fingerprint(folder / DUMP) != (snapshot.sha256, snapshot.bytes):
            raise Unavailable(f"the dump of backup {snapshot.id} is damaged; choose another by its id")

    def _sync(self, path: str) -> None:
        if self._is_local:
            sync_file(path)


def fingerprint(path: Path) -> tuple[str, int]:
    """Return the sha256 of a file and its bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


@contextmanager
def _outages_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable("the place of the backups does not answer; try again") from error
