"""Rows of a collection, written and removed in the order that loses nothing."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock

from core.errors import InvalidInput, NotFound, Unavailable, VitrineError
from core.ports import Ledger, VectorStore
from core.store_check import StoreCheck
from core.types import EncoderInfo, IndexItem, Removal, Vector, VectorRow, is_unit

Failure = tuple[IndexItem, VitrineError]
GRACE_S = 15.0
"""Default age at which an unfinished write counts as abandoned, in seconds."""
_PREPARE_WAIT_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """Outcome of a write: rows in Milvus, rows removed as obsolete meanwhile, and rows refused for good."""

    settled: Sequence[IndexItem] = ()
    obsolete: Sequence[IndexItem] = ()
    refused: Sequence[Failure] = ()


class IndexRows:
    """Keeps a store and the ledger consistent. Blocking; safe to use from several threads.

    The ledger opens a row before Milvus may hold it and settles it afterwards. So a crash at any point leaves a
    missing row, which is written again, or an obsolete one, which is removed. A removal opens its rows, too, and
    deletes those that no writer has changed by its end. One vector can escape: that of a writer that takes longer
    than the grace over an obsolete row and dies after the upsert. `verify --repair` finds it.
    """

    def __init__(self, store: VectorStore, ledger: Ledger, check: StoreCheck | None = None) -> None:
        self._check = check or StoreCheck(store, ledger)
        self._store = store
        self._ledger = ledger
        self._prepared: set[str] = set()
        self._preparing = Lock()

    def prepare(self, info: EncoderInfo) -> None:
        """Create and register the version's collection where needed; checks once a version.

        Raises:
            StoreUnknown: the store is not the one that the ledger describes.
            Unavailable: the store or the ledger does not answer, or blocks another caller.
        """
        if info.collection in self._prepared:
            return
        # Of two callers that find a collection missing, the second would reset what the first has settled since.
        # Two processes can still do so; then these images are encoded again.
        if not self._preparing.acquire(timeout=_PREPARE_WAIT_S):
            raise Unavailable("the collection is still being prepared; try again")
        try:
            if info.collection in self._prepared:
                return
            self._check.take()
            if not self._store.has_collection(info.collection):
                # A store without the collection may be another one than at the last check.
                self._check.look_again()
                self._check.take()
                # The ledger's rows of a missing collection were lost with it.
                self._ledger.reset(info.collection)
            self._store.ensure_collection(info.collection, info.dimension)
            self._ledger.register(info)
            if self._store.alias_target(info.name) is None:
                self._store.set_alias(info.name, info.collection)
            self._prepared.add(info.collection)
        finally:
            self._preparing.release()

    def look_again(self) -> None:
        """Forget which collections are prepared: one may be lost although the ledger shows no gap."""
        self._prepared.clear()

    def vectors(self, info: EncoderInfo, items: Sequence[IndexItem]) -> dict[str, Vector]:
        """Read the vectors that the collection holds of these images at any revision, by image id.

        An image id identifies the content of a file, and revisions differ in attributes and place only, so these
        images need no encoding. Damaged vectors are left out.

        Raises:
            NotFound: the collection was lost.
        """
        copies = self._ledger.copies(info, [item.image_id for item in items])
        keys: dict[str, list[str]] = {}
        for collection, key in (each for some in copies.values() for each in some):
            keys.setdefault(collection, []).append(key)
        stored: dict[tuple[str, str], Vector] = {}
        for collection, some in keys.items():
            found: Mapping[str, Vector] = {}
            if collection == info.collection:
                with self._loss_noticed(info):
                    found = self._store.fetch(collection, some)
            else:
                with suppress(NotFound):
                    found = self._store.fetch(collection, some)
            stored.update({(collection, key): each for key, each in found.items() if is_unit(each)})
        sound = {image_id: [each for each in some if each in stored] for image_id, some in copies.items()}
        return {image_id: stored[some[0]] for image_id, some in sound.items() if some}

    def write(self, info: EncoderInfo, rows: Sequence[VectorRow]) -> WrittenRows:
        """Write opened rows; those in none of the three outcomes are still missing."""
        if not rows:
            return WrittenRows()
        try:
            with self._loss_noticed(info):
                return self._put(info, rows)
        except InvalidInput as error:
            if len(rows) == 1:
                return WrittenRows(refused=[(rows[0].item, error)])
            # One row that cannot be stored must not block the others.
            apart = [self.write(info, [row]) for row in rows]
            return WrittenRows(
                [item for each in apart for item in each.settled],
                [item for each in apart for item in each.obsolete],
                [failure for each in apart for failure in each.refused],
            )

    def settle(self, collection: str, items: Sequence[IndexItem]) -> WrittenRows:
        """Record rows that Milvus holds; those that are obsolete by now are removed."""
        out = {item.key for item in self._ledger.settle({collection: items})[collection]}
        # Without grace: this writer has opened the rows itself.
        gone = set(self.remove(collection, sorted(out), grace_s=0))
        return WrittenRows(
            [item for item in items if item.key not in out], [item for item in items if item.key in gone]
        )

    def remove(self, collection: str, keys: Sequence[str], grace_s: float = GRACE_S) -> Sequence[str]:
        """Delete obsolete rows from Milvus, then from the ledger; the other order could leave orphans.

        The row of a current image stays and becomes missing. Rows that were opened less than `grace_s` seconds ago
        are left to their writers, or to the repair where those die. Returns the removed keys.

        Raises:
            NotFound: the collection was lost, with all these rows.
            StoreUnknown: the store is not the one that the ledger describes; the rows stay obsolete.
        """
        self._check.require()
        return self.complete(collection, self._ledger.begin_removal(collection, keys, grace_s))

    def complete(self, collection: str, removal: Removal) -> Sequence[str]:
        """Delete the vectors of a removal that has begun, then its rows; returns its keys. Raises as `remove`."""
        if not removal.keys:
            return []
        self._check.require()
        try:
            self._store.delete(collection, removal.keys)
        except NotFound:
            self._check.look_again()
            self._check.require()
            self._ledger.end_removal({collection: removal})
            raise
        self._ledger.end_removal({collection: removal})
        return removal.keys

    def remove_obsolete(self, collection: str, batch_size: int = 64, grace_s: float = 0.0) -> int:
        """Delete the rows of images that are gone or have changed; returns their number."""
        removed = 0
        while keys := self._ledger.obsolete(collection, batch_size, grace_s):
            try:
                removed += len(self.remove(collection, keys, grace_s))
            except NotFound:
                # The vectors were lost with the collection, and the rows are deleted.
                removed += len(keys)
        return removed

    def remove_obsolete_of_model(self, info: EncoderInfo, batch_size: int = 64, grace_s: float = 0.0) -> int:
        """Delete the rows of images that are gone or have changed in all versions of a model; returns their number.

        `info` is the version that serves, and comes first. Errors of other versions are logged and block nothing.

        Raises:
            Unavailable: the store or the ledger does not answer for the version that serves.
        """
        removed = self.remove_obsolete(info.collection, batch_size, grace_s)
        for other in self._ledger.versions():
            if other.name == info.name and other.collection != info.collection:
                # A writer that died with a replica of that version has left its rows.
                try:
                    removed += self.remove_obsolete(other.collection, batch_size, grace_s)
                except VitrineError as error:
                    logger.warning("obsolete rows stay in %s: %s", other.collection, error.message)
        return removed

    @contextmanager
    def _loss_noticed(self, info: EncoderInfo) -> Iterator[None]:
        try:
            yield
        except NotFound:
            # The next call creates the collection again.
            self._prepared.discard(info.collection)
            self._check.look_again()
            raise

    def _put(self, info: EncoderInfo, rows: Sequence[VectorRow]) -> WrittenRows:
        self._check.require()
        self._store.upsert(info.collection, rows)
        return self.settle(info.collection, [row.item for row in rows])
