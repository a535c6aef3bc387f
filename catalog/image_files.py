"""Image files that no product names: marked when their last image is dropped, removed after a grace.

All images with the same content share one file. Three kinds of transaction must not interleave:

- a *put* stores files, then writes image rows that name them;
- a *drop* removes image rows, by a delete or a replacement, and marks their files as unnamed;
- a *removal* deletes a file that no image row names.

Each takes the lock of every file that it touches, `lock_files`, before it looks at the file, and keeps it to its
end. Puts and drops share it, a removal has it alone. On SQLite that is the database's one write lock. On PostgreSQL
it is an advisory lock, taken in a statement of its own: with READ COMMITTED, every later statement sees what former
holders committed. So for one file:

- A put before a removal: the removal sees the image row and only deletes the mark.
- A removal before a put: the put looks for the file under the lock, finds none, and stores it again before it
  names it. What it saw before it had the lock does not count. It skips the look only where an image names the
  file already, since no removal can have deleted that one.
- A drop and a put of the same content: a mark may exist beside an image row. A removal finds the row, keeps the
  file and deletes the mark.
- A removal that dies: the database rolls back and frees the lock. The mark stays, the file may be gone. The next
  removal deletes what is left, and a put finds out by looking.

None of this depends on time. The grace serves readers of a file that was just replaced, and operators who undo a
deletion by restoring the database alone. A removal deletes one file a transaction, so it holds its lock for one
call to the store. If the database server ends its session during that call, a put of the same content could pass
in between.

A store of files belongs to one catalog: files that another catalog names look unnamed here. The first removal
writes the catalog's id into the store; where the store has another id, nothing is removed. A copy of a database
has the same id, so a copy needs a store of its own.

A put that dies between its files and its transaction leaves files with neither row nor mark. Only a listing of
the store finds them: `mark_unnamed`, one 256th at a time.
"""

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, Engine, delete, func, insert, select, text, tuple_, update
from sqlalchemy.exc import DBAPIError

from catalog.blobs import OWNER, FsspecBlobs
from catalog.database import SqlPart, batched_rows, locked, reading, upsert, utc_now, writing
from catalog.tables import CaptionRow, CatalogIdRow, FileHoldRow, ImageRow, ImportedImageRow, UnnamedFileRow
from core.errors import ConfigError, Conflict, Unavailable

logger = logging.getLogger(__name__)

PREFIXES = tuple(f"{number:02x}" for number in range(256))
"""First two digits of file names; each covers one 256th of all files."""
_FILES = 0x7666
"""First key of PostgreSQL's advisory locks of files; keys of two numbers never meet the locks of products."""
_MOST_LOCKS = 1024
HOLD_S = 120.0
"""Time for which one heartbeat of a backup protects files from removal, in seconds."""
_BEATS_A_HOLD = 6
_MAY_NOT_WRITE = ("42501", "25006")
"""PostgreSQL's states: the role lacks a right, or the server or the session is read-only."""
Outcome = Literal["removed", "named", "held"]


@dataclass(frozen=True, slots=True)
class Collected:
    """Outcome of marks: files removed, and files that products name after all.

    `failed` counts files that could not be removed; their marks stay. `held`: a backup or a restore is running, so
    the other files stay for now. `last` is the last mark that was processed, where more may follow.
    """

    removed: int = 0
    named: int = 0
    failed: int = 0
    held: bool = False
    last: tuple[datetime, str] | None = field(default=None, compare=False)


def lock_files(connection: Connection, sha256s: Iterable[str], shared: bool = False) -> None:
    """Lock these files until the transaction ends: shared by those who name or drop them, alone by who removes them.

    Some files have the same lock, for PostgreSQL has room for 6,400 locks by default, and a transaction may touch
    more files.
    """
    if connection.dialect.name != "postgresql":
        return
    # In one order, so that no deadlock is possible.
    keys = sorted({int(each[:8], 16) % _MOST_LOCKS for each in sha256s})
    if keys:
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        locks = text(f"SELECT {function}({_FILES}, key) FROM unnest(CAST(:keys AS int[])) AS key")
        connection.execute(locks, {"keys": keys})


def named_files(connection: Connection, sha256s: Iterable[str]) -> set[str]:
    """Return those of these files that images name, as this transaction sees it."""
    named: set[str] = set()
    for some in batched_rows(sorted(sha256s)):
        named.update(connection.scalars(select(ImageRow.sha256).where(ImageRow.sha256.in_(some))))
    return named


def drop_images(connection: Connection, images: Iterable[tuple[str, str]], now: datetime) -> None:
    """Mark the files of dropped images, and delete their captions.

    Each image is an id with a sha256. The caller holds the locks of their product and their files.
    """
    dropped = dict(images)
    for some in batched_rows(sorted(dropped)):
        connection.execute(delete(CaptionRow).where(CaptionRow.image_id.in_(some)))
    marks = [{"sha256": sha256, "since": now} for sha256 in sorted(set(dropped.values()))]
    upsert(connection, UnnamedFileRow, marks, ["since"])


class SqlImageFiles(SqlPart):
    """Finds and removes image files that no product names.

    Methods that remove or mark raise Conflict where the store belongs to another catalog.
    """

    def __init__(self, engine: Engine, blobs: FsspecBlobs, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(engine, clock)
        self._blobs = blobs

    def check_owner(self, claim: bool = True) -> None:
        """Check that the store belongs to this catalog or to none; `claim` makes one of none ours.

        Raises:
            Conflict: it belongs to another.
        """
        ours = self.catalog_id()
        owner = self._blobs.owner()
        if owner is None and claim:
            self._blobs.set_owner(ours)
            owner = self._blobs.owner()
        if owner not in (None, ours):
            raise Conflict(
                "the store of image files belongs to another database, which may name files that this one does not: "
                f"give each its own blobs_url, or delete the store's file {OWNER!r} if the other database is gone"
            )

    def take_over(self, replaced: str) -> bool:
        """Claim the store where it belonged to `replaced`, the catalog that this one replaces.

        Returns whether this catalog may remove files. It may not where the store belongs to a third one, which may
        still be in use.
        """
        ours, owner = self.catalog_id(), self._blobs.owner()
        if owner == replaced:
            self._blobs.set_owner(ours)
        return owner in (None, ours, replaced)

    def catalog_id(self) -> str:
        """Read the catalog's id; a copy of the database has the same."""
        ((catalog_id,),) = self._read(select(CatalogIdRow.catalog_id))
        return str(catalog_id)

    def waiting(self) -> int:
        """Count the marked files."""
        ((number,),) = self._read(select(func.count()).select_from(UnnamedFileRow))
        return int(number)

    def unnamed(self, prefix: str) -> dict[str, int]:
        """List the files with this prefix that no image names, each with its bytes."""
        found = self._blobs.sizes(prefix)
        with reading(self._engine) as connection:
            named = named_files(connection, found)
        return {sha256: size for sha256, size in found.items() if sha256 not in named}

    def mark_unnamed(self, prefix: str) -> dict[str, int]:
        """Mark the files with this prefix that no image names, and list them; a marked file keeps its time.

        Half-written files of killed writers are deleted at once.
        """
        self.check_owner()
        found = self.unnamed(prefix)
        for some in batched_rows(sorted(found)):
            with writing(self._engine) as connection:
                marks = [{"sha256": sha256, "since": self._clock()} for sha256 in some]
                upsert(connection, UnnamedFileRow, marks)
        # Last: a file that cannot be deleted must not keep others from being marked.
        self._blobs.remove_abandoned(prefix)
        return found

    def collect(self, grace_s: float, limit: int, after: tuple[datetime, str] | None = None) -> Collected:
        """Remove up to `limit` files that were marked at least `grace_s` ago; 0: at any time.

        It begins with the oldest mark, or `after` the `last` of the call before. A caller that repeats until there
        is no `last` tries each file once, even where some cannot be removed.
        """
        cutoff = None if grace_s <= 0 else self._clock() - timedelta(seconds=grace_s)
        since, sha256 = UnnamedFileRow.since, UnnamedFileRow.sha256
        marks = select(since, sha256).order_by(since, sha256).limit(limit)
        if cutoff is not None:
            marks = marks.where(since <= cutoff)
        if after is not None:
            marks = marks.where(tuple_(since, sha256) > after)
        page = [(row.since, row.sha256) for row in self._read(marks)]
        if page:
            # Raises where the store does not answer, so that not every file of the next pages is tried.
            self.check_owner()
        outcomes: Counter[str] = Counter()
        for _, name in page:
            try:
                outcome = self.remove(name, cutoff)
            except Unavailable as error:
                outcomes["failed"] += 1
                logger.warning("the image file %s could not be removed: %s", name, error.message)
                continue
            outcomes[outcome] += 1
            if outcome == "held":
                break
        removed, named, failed, held = (outcomes[each] for each in ("removed", "named", "failed", "held"))
        return Collected(
            removed, named, failed, bool(held), page[-1] if len(page) == limit and not held else None
        )

    def remove(self, sha256: str, cutoff: datetime | None = None) -> Outcome:
        """Remove a file that no image names, marked or not; one marked after `cutoff` counts as named."""
        with writing(self._engine, bounded=True) as connection:
            lock_files(connection, [sha256])
            mark = UnnamedFileRow.sha256 == sha256
            if cutoff is not None:
                since = connection.scalar(select(UnnamedFileRow.since).where(mark))
                if since is None or since > cutoff:
                    return "named"
            image = connection.execute(select(ImageRow.id).where(ImageRow.sha256 == sha256).limit(1)).first()
            if image is None:
                # Checked last: a backup commits its hold before its snapshot. Where there is no hold, the snapshot
                # comes after this check and contains no row that names the file.
                if self._held(connection):
                    return "held"
                imported = locked(ImportedImageRow, ImportedImageRow.sha256 == sha256)
                connection.execute(delete(ImportedImageRow).where(imported))
                self._blobs.remove(sha256)
            connection.execute(delete(UnnamedFileRow).where(mark))
            return "removed" if image is None else "named"

    @contextmanager
    def holding(self, lease_s: float = HOLD_S) -> Iterator[None]:
        """Protect all files from removal while the block runs; if the process dies, for `lease_s` longer.

        Raises:
            ConfigError: the database's role may not write the hold.
        """
        hold_id, ended = uuid.uuid4().hex, threading.Event()
        row = FileHoldRow.id == hold_id

        def hold() -> bool:
            """Begin or renew the hold; returns whether it existed until now."""
            with writing(self._engine) as connection:
                now = self._clock()
                lives = update(FileHoldRow).where(row, FileHoldRow.expires_at > now)
                ends_at = now + timedelta(seconds=lease_s)
                if connection.execute(lives.values(expires_at=ends_at)).rowcount:
                    return True
                connection.execute(delete(FileHoldRow).where(FileHoldRow.expires_at <= now))
                connection.execute(insert(FileHoldRow).values(id=hold_id, expires_at=ends_at))
            return False

        def renew() -> None:
            while not ended.wait(lease_s / _BEATS_A_HOLD):
                try:
                    if not hold():
                        logger.warning(
                            "the hold on image files was lost for a while: some may have been removed"
                        )
                # Any error: a restore replaces the tables meanwhile.
                except Exception as error:
                    logger.warning("the hold on image files could not be renewed: %r", error)

        try:
            hold()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _MAY_NOT_WRITE:
                raise
            raise ConfigError(
                "a backup or a restore has to keep image files from being removed: give the role of database_url "
                f"the rights SELECT, INSERT, UPDATE and DELETE on the table {FileHoldRow.__tablename__}, on a "
                "server that takes writes"
            ) from error
        heart = threading.Thread(target=renew, name="file-hold", daemon=True)
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join()
            try:
                with writing(self._engine) as connection:
                    connection.execute(delete(FileHoldRow).where(row))
            # Any error: a restore may have replaced the table, or its own error is being raised.
            except Exception as error:
                logger.warning("the hold on image files was not released and expires by itself: %r", error)

    def _held(self, connection: Connection) -> bool:
        living = select(FileHoldRow.id).where(FileHoldRow.expires_at > self._clock()).limit(1)
        return connection.execute(living).first() is not None
