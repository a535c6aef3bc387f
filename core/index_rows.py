"""The rows of a collection, written and removed in the one order that loses nothing."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from core.errors import InvalidInput, NotFound, Unavailable, VitrineError
from core.ports import Ledger, VectorStore
from core.store_check import StoreCheck
from core.types import EncoderInfo, IndexItem, Vector, VectorRow
from core.vectors import is_unit

Failure = tuple[IndexItem, VitrineError]
GRACE_S = 15.0
"""Age at which an unfinished write counts as abandoned, in seconds, where no configuration says it."""
_PREPARE_WAIT_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """What became of rows: in, removed again since they became obsolete meanwhile, or refused for good."""

    settled: Sequence[IndexItem] = ()
    obsolete: Sequence[IndexItem] = ()
    refused: Sequence[Failure] = ()


class IndexRows:
    """Keeps a store and the ledger in step. Blocking; safe to use from several threads.

    The ledger announces a row before Milvus may hold it and settles it after Milvus does, so a crash at
    any point leaves either a missing row, which is written again, or an obsolete one, which is removed.
    A removal announces its rows too, and drops those that no writer has touched until its end. Only a writer
    that takes longer than the grace over an obsolete row and dies after it has put the vector in leaves one
    that the ledger does not know; `verify --repair` finds it.
    """

    def __init__(self, store: VectorStore, ledger: Ledger, check: StoreCheck | None = None) -> None:
        self._check = check or StoreCheck(store, ledger)
        self._store = store
        self._ledger = ledger
        self._prepared: set[str] = set()
        self._preparing = Lock()

    def prepare(self, info: EncoderInfo) -> None:
        """Have the version's collection ready to be written and searched; looks once a version.

        Raises:
            StoreUnknown: the store is not the one that the ledger speaks of.
            Unavailable: the store or the ledger does not answer, or keeps another caller waiting.
        """
        if info.collection in self._prepared:
            return
        with self._one_at_a_time():
            if info.collection in self._prepared:
                return
            self._check.take()
            if not self._store.has_collection(info.collection):
                # A store without it may be another than at the last look.
                self._check.look_again()
                self._check.take()
                # What the ledger says is in a collection that is not there was lost with it.
                self._ledger.reset(info.collection)
            self._store.ensure_collection(info.collection, info.dimension)
            self._ledger.register(info)
            if self._store.alias_target(info.name) is None:
                self._store.set_alias(info.name, info.collection)
            self._prepared.add(info.collection)

    def look_again(self) -> None:
        """Forget what is prepared: a collection may be lost although the ledger is content."""
        self._prepared.clear()

    def vectors(self, info: EncoderInfo, items: Sequence[IndexItem]) -> dict[str, Vector]:
        """Read, by image id, what the collection holds of these images at any revision.

        An image id stands for the content of a file, and revisions differ in attributes and place only: so
        these need not be encoded again. A vector that was damaged is left out.

        Raises:
            NotFound: the collection was lost.
        """
        keys = self._ledger.settled(info.collection, [item.image_id for item in items])
        if not keys:
            return {}
        with self._loss_noticed(info):
            stored = self._store.fetch(info.collection, list(keys.values()))
        return {
            image_id: stored[key] for image_id, key in keys.items() if key in stored and is_unit(stored[key])
        }

    def write(self, info: EncoderInfo, rows: Sequence[VectorRow]) -> WrittenRows:
        """Write announced rows; those that are in none of the three answers are missing still."""
        if not rows:
            return WrittenRows()
        try:
            with self._loss_noticed(info):
                return self._put(info, rows)
        except InvalidInput as error:
            if len(rows) == 1:
                return WrittenRows(refused=[(rows[0].item, error)])
            # One row that cannot be stored must not keep its neighbors out.
            return _together([self.write(info, [row]) for row in rows])

    def settle(self, collection: str, items: Sequence[IndexItem]) -> WrittenRows:
        """Record rows that Milvus holds; those that became obsolete meanwhile go."""
        out = {item.key for item in self._ledger.settle(collection, items)}
        # Without grace: the rows are open since this writer has opened them.
        gone = set(self.remove(collection, sorted(out), grace_s=0))
        return WrittenRows(
            [item for item in items if item.key not in out], [item for item in items if item.key in gone]
        )

    def remove(self, collection: str, keys: Sequence[str], grace_s: float = GRACE_S) -> Sequence[str]:
        """Delete obsolete rows from Milvus first, then from the ledger: the other order could leave orphans.

        A current image's row stays, and becomes missing. What somebody opened less than `grace_s` seconds ago
        is left to its writer, and to the repair should that one die. Returns the keys that were removed.

        Raises:
            NotFound: the collection was lost, with all that was to be removed.
            StoreUnknown: the store is not the one that the ledger speaks of; the rows stay obsolete.
        """
        self._check.require()
        removal = self._ledger.begin_removal(collection, keys, grace_s)
        if not removal.keys:
            return []
        try:
            self._store.delete(collection, removal.keys)
        except NotFound:
            self._check.look_again()
            self._check.require()
            self._ledger.end_removal(collection, removal)
            raise
        self._ledger.end_removal(collection, removal)
        return removal.keys

    def remove_obsolete(self, collection: str, batch_size: int = 64, grace_s: float = 0.0) -> int:
        """Delete the rows of images that are gone or have changed; returns how many."""
        removed = 0
        while keys := self._ledger.obsolete(collection, batch_size, grace_s):
            try:
                removed += len(self.remove(collection, keys, grace_s))
            except NotFound:
                # Lost with the collection, and their rows are dropped.
                removed += len(keys)
        return removed

    def remove_obsolete_of_model(self, info: EncoderInfo, batch_size: int = 64, grace_s: float = 0.0) -> int:
        """Delete the rows of images that are gone or have changed in every version of the model; returns how many.

        `info` is the version that serves, which comes first: what is wrong with another's collection is logged
        and holds up none.

        Raises:
            Unavailable: the store or the ledger does not answer for the version that serves.
        """
        removed = self.remove_obsolete(info.collection, batch_size, grace_s)
        for other in self._ledger.versions():
            if other.name == info.name and other.collection != info.collection:
                # A writer that died with a replica of that version has left its rows to whoever comes next.
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
            # The next call makes the collection again.
            self._prepared.discard(info.collection)
            self._check.look_again()
            raise

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        # Of two that find a new collection missing, the later would reset what the earlier has settled since.
        # Between processes that remains, and costs that these images are encoded again.
        if not self._preparing.acquire(timeout=_PREPARE_WAIT_S):
            raise Unavailable("the collection is still being prepared; try again")
        try:
            yield
        finally:
            self._preparing.release()

    def _put(self, info: EncoderInfo, rows: Sequence[VectorRow]) -> WrittenRows:
        self._check.require()
        self._store.upsert(info.collection, rows)
        return self.settle(info.collection, [row.item for row in rows])


def _together(answers: Sequence[WrittenRows]) -> WrittenRows:
    return WrittenRows(
        [item for each in answers for item in each.settled],
        [item for each in answers for item in each.obsolete],
        [failure for each in answers for failure in each.refused],
    )
