"""Where backups are kept, on any file system that fsspec knows, and how files are copied there.

images/ab/cd/abcd…     image files by content, shared by all snapshots and never written twice
reports/ab/cd/abcd…      what jobs have written, likewise
snapshots/ID/catalog     the database, as SQLite's file or pg_dump's custom format
snapshots/ID/images.txt, reports.txt   which of those files it refers to
snapshots/ID/snapshot.json   what it is; written last, so that a backup that was cut short is none
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalog.backup.dumps import IMAGES, REPORTS
from catalog.blobs import FsspecBlobs, sync_file
from core.batching import MAX_READ_BYTES
from core.concurrency import WeightedSemaphore
from core.errors import ConfigError, NotFound, Unavailable

_FILES_AT_ONCE = 16
_PREFIX_DIGITS = 2
_reading = WeightedSemaphore()
Outcome = Literal["copied", "present", "missing", "damaged"]


@dataclass(slots=True)
class Copied:
    """What became of the files: how many were there already, how many came, and which cannot be had."""

    present: int = 0
    copied: int = 0
    copied_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether the other store has every file now."""
        return not (self.missing or self.damaged)

    def count(self, sha256: str, outcome: Outcome, size: int) -> None:
        """Note one file."""
        if outcome == "copied":
            self.copied += 1
            self.copied_bytes += size
        elif outcome == "present":
            self.present += 1
        else:
            (self.missing if outcome == "missing" else self.damaged).append(sha256)


def copy_files(source: FsspecBlobs, target: FsspecBlobs, sha256s: Iterable[str], copied: Copied) -> None:
    """Copy files by their names, which come in order; each is held against its name before it is written.

    A damaged file is not copied, so what an earlier copy has kept of it stays.

    Raises:
        Unavailable: one of the stores does not answer.
    """
    with ThreadPoolExecutor(_FILES_AT_ONCE, "copy") as pool:
        # A portion at a time: two listings answer for 1 of 256 files, and memory stays small.
        for prefix, names in groupby(sha256s, key=lambda name: name[:_PREFIX_DIGITS]):
            there, here = source.sizes(prefix), target.sizes(prefix)
            for sha256, outcome, size in pool.map(
                partial(_copy_file, source, target, there, here), _once(names)
            ):
                copied.count(sha256, outcome, size)


def _copy_file(
    source: FsspecBlobs, target: FsspecBlobs, there: dict[str, int], here: dict[str, int], sha256: str
) -> tuple[str, Outcome, int]:
    size = here.get(sha256)
    if size is not None and there.get(sha256, size) == size:
        return sha256, "present", size
    with _reading.holding(there.get(sha256, 0), MAX_READ_BYTES):
        try:
            data = source.get(sha256)
        except NotFound:
            return sha256, "missing", 0
        if hashlib.sha256(data).hexdigest() != sha256:
            return sha256, "present" if size is not None else "damaged", len(data)
        target.put(data)
        return sha256, "copied", len(data)


def _once(names: Iterable[str]) -> Iterator[str]:
    return (name for name, _ in groupby(names))


DUMP = "catalog"
_PARTS = (DUMP, IMAGES, REPORTS)
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
    images: int = Field(description="Images in it.")


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
        places = [f"{url.rstrip('/')}/{name}" for name in ("images", "reports")]
        self.stores = (FsspecBlobs(places[0]), FsspecBlobs(places[1]))
        """Image files, and what jobs have written."""

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
