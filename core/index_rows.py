"""Rows of a collection, written and removed in the order that loses nothing."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain
from threading import Lock
from types import MappingProxyType
from typing import Literal

from core.errors import InvalidInput, NotFound, Unavailable, VitrineError
from core.ports import Ledger, VectorStore
from core.store_check import StoreCheck
from core.types import EncoderInfo, IndexItem, Removal, Vector, VectorRow, is_unit

Failure = tuple[IndexItem, VitrineError]
RowState = Literal["settled", "obsolete"]
GRACE_S = 15.0
"""Default age at which an unfinished write counts as abandoned, in seconds."""
_PREPARE_WAIT_S = 10.0

logger = logging.getLogger(__name__)


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

    def is_prepared(self, info: EncoderInfo) -> bool:
        """Return, without waiting, whether `prepare` would do nothing."""
        return info.collection in self._prepared

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

    def copies(
        self,
        info: EncoderInfo,
        image_ids: Sequence[str],
        known: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType({}),
    ) -> dict[str, Vector]:
        """Read vectors of these images from other rows, by image id.

        An image id identifies the content of a file, and its rows differ in attributes and place only, so these
        images need no encoding. `known` has rows that may hold the vector, as collections with row keys by image
        id. The ledger names those of the other images. Damaged vectors are left out.

        Raises:
            NotFound: the version's collection was lost.
        """
        places = dict(known)
        if unknown := [each for each in image_ids if each not in places]:
            places |= self._ledger.copies(info, unknown)
        keys: dict[str, list[str]] = {}
        for collection, key in chain.from_iterable(places.values()):
            keys.setdefault(collection, []).append(key)
        found: dict[tuple[str, str], Vector] = {}
        for collection, some in keys.items():
            with self._loss_noticed(info) if collection == info.collection else suppress(NotFound):
                stored = self._store.fetch(collection, some)
                found |= {(collection, key): vector for key, vector in stored.items() if is_unit(vector)}
        sound = {each: [place for place in some if place in found] for each, some in places.items()}
        return {image_id: found[some[0]] for image_id, some in sound.items() if some}

    def upsert(self, info: EncoderInfo, rows: Sequence[VectorRow]) -> list[Failure]:
        """Write opened rows; returns those that can never be stored. The others are in Milvus, but not settled.

        Raises:
            NotFound: the collection was lost.
            Unavailable: the store does not answer, or is not the one that the ledger describes.
        """
        if not rows:
            return []
        try:
            with self._loss_noticed(info):
                self._put(info, rows)
        except InvalidInput as error:
            if len(rows) == 1:
                return [(rows[0].item, error)]
            # One row that cannot be stored must not block the others.
            middle = len(rows) // 2
            return [*self.upsert(info, rows[:middle]), *self.upsert(info, rows[middle:])]
        return []

    def settle(self, items: Mapping[str, Sequence[IndexItem]]) -> dict[tuple[str, str], RowState]:
        """Record rows that Milvus holds, by collection; those that are obsolete by now are removed.

        Returns the state of each row by collection and row key. Rows that are missing again are in none.
        """
        written = {collection: some for collection, some in items.items() if some}
        if not written:
            return {}
        out = self._ledger.settle(written)
        states: dict[tuple[str, str], RowState] = {
            (collection, item.key): "settled" for collection, some in written.items() for item in some
        }
        for collection, vanished in out.items():
            if not vanished:
                continue
            keys = sorted({item.key for item in vanished})
            for key in keys:
                del states[collection, key]
            try:
                # Without grace: this writer has opened the rows itself.
                removed = self.remove(collection, keys, grace_s=0)
            except VitrineError as error:
                # The repair removes them. What is settled is settled.
                logger.warning("obsolete rows stay in %s: %s", collection, error.message)
                continue
            states |= {(collection, key): "obsolete" for key in removed}
        return states

    def remove(self, collection: str, keys: Sequence[str], grace_s: float = GRACE_S) -> Sequence[str]:
        """Delete obsolete rows from Milvus, then from the ledger; the other order could leave orphans.

        The row of a current image stays and becomes missing. Rows that were opened less than `grace_s` seconds ago
        are left to their writers, or to the repair where those die. Returns the removed keys.

        Raises:
            NotFound: the collection was lost, with all these rows.
            StoreUnknown: the store is not the one that the ledger describes; the rows stay obsolete.
        """
        self._check.require()
        removal = self._ledger.begin_removal(collection, keys, grace_s)
        if removal.keys:
            self.finish([(collection, removal)])
        return removal.keys

    def finish(self, removals: Sequence[tuple[str, Removal]]) -> None:
        """Delete rows, which a write or `begin_removal` has opened, from Milvus and then from the ledger.

        What cannot be deleted stays obsolete; the error is raised after the others are done.

        Raises:
            NotFound: a collection was lost, with all these rows.
            Unavailable: the store does not answer, or is not the one that the ledger describes.
        """
        self._check.require()
        keys: dict[str, set[str]] = {}
        for collection, removal in removals:
            keys.setdefault(collection, set()).update(removal.keys)
        failures: dict[str, VitrineError] = {}
        for collection, some in keys.items():
            try:
                self._store.delete(collection, sorted(some))
            except NotFound as error:
                # Another Milvus may answer. If it is the ledger's, these rows were lost with the collection.
                self._check.look_again()
                self._check.require()
                failures[collection] = error
            except Unavailable as error:
                failures[collection] = error
        # A removal ends by the time at which it began, so those of one write end together.
        together: dict[datetime, dict[str, list[str]]] = {}
        for collection, removal in removals:
            if isinstance(failures.get(collection), NotFound | None):
                together.setdefault(removal.begun_at, {}).setdefault(collection, []).extend(removal.keys)
        for begun_at, ended in together.items():
            self._ledger.end_removal({each: Removal(some, begun_at) for each, some in ended.items()})
        for failure in failures.values():
            raise failure

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

    def _put(self, info: EncoderInfo, rows: Sequence[VectorRow]) -> None:
        self._check.require()
        self._store.upsert(info.collection, rows)
