"""Check that Milvus is the one that the ledger describes, so that a wrong address resets nothing."""

import logging
import time
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from core.errors import StoreUnknown, VitrineError
from core.ports import Ledger, VectorStore

_GOOD_FOR_S = 30.0
_OTHERS_GOOD_FOR_S = 1.5
"""Time for which a verdict of new, emptied or refused counts, in seconds."""
_State = Literal["known", "new", "emptied"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Result of a look, or its error; `era` identifies the losses known when it began."""

    found: _State | VitrineError
    store_id: str | None
    ended_at: float
    era: object


class StoreCheck:
    """Compares the id that the ledger keeps of its Milvus with the marks in Milvus.

    Blocking; safe to use from several threads, of which one at a time looks. The first of these that holds decides:

    - known: Milvus has the mark.
    - new: nothing is settled in the ledger. Milvus becomes the ledger's.
    - new: the ledger has no id yet, as after an update, and Milvus has one of its collections.
    - emptied: Milvus has neither marks nor collections, and `rebuilt_if_empty`. It is filled without confirmation.
    - refused: otherwise.
    """

    def __init__(self, store: VectorStore, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._verdict: _Verdict | None = None
        self._era = object()
        self._looking = Lock()
        self._logged = False

    @property
    def is_known(self) -> bool:
        """Return, without waiting, whether Milvus was found to be the ledger's in the last half minute."""
        verdict = self._verdict
        if verdict is None or verdict.found != "known":
            return False
        return self._holds(verdict, time.monotonic(), _GOOD_FOR_S)

    def require(self) -> None:
        """Return unless Milvus is refused; writes nothing, and looks twice a minute once Milvus is known.

        Raises:
            StoreUnknown: Milvus is not the ledger's; the message names the expected mark and the remedy.
            Unavailable: Milvus or the ledger does not answer.
        """
        if not self.is_known:
            self._judge(_OTHERS_GOOD_FOR_S)

    def take(self) -> None:
        """Mark Milvus as the ledger's where it is new or emptied; raises as `require`."""
        if self.is_known:
            return
        while True:
            verdict = self._judge(0)
            if verdict.found == "known":
                return
            if verdict.found == "emptied":
                logger.warning("%s is empty: all its images are encoded again", self._store.address)
                self._ledger.forget_store(verdict.store_id)
            self._store.set_mark(self._ledger.make_store_id())

    def look_again(self) -> None:
        """Forget all verdicts, also of a running look: a collection is lost."""
        self._era = object()

    def _judge(self, good_for_s: float) -> _Verdict:
        """Look, unless a look has ended since this call or less than `good_for_s` before it."""
        asked_at = time.monotonic()
        with self._looking:
            verdict = self._verdict
            if verdict is None or not self._holds(verdict, asked_at, good_for_s):
                verdict = self._verdict = self._look()
        if isinstance(verdict.found, VitrineError):
            # A copy: several threads raise it.
            raise verdict.found.reworded(verdict.found.message) from verdict.found
        return verdict

    def _holds(self, verdict: _Verdict, asked_at: float, good_for_s: float) -> bool:
        """Return whether a verdict counts for a call; an outage does only for calls that waited for its look."""
        is_outage = isinstance(verdict.found, VitrineError) and not isinstance(verdict.found, StoreUnknown)
        is_fresh = asked_at < verdict.ended_at + (0 if is_outage else good_for_s)
        return is_fresh and verdict.era is self._era

    def _look(self) -> _Verdict:
        era, store_id = self._era, None
        found: _State | VitrineError
        try:
            store_id = self._ledger.store_id()
            while (state := self._state(store_id)) is None:
                # Another process may have claimed the store meanwhile.
                former, store_id = store_id, self._ledger.store_id()
                if store_id == former:
                    raise self._refusal(store_id)
            self._logged, found = False, state
        except VitrineError as error:
            found = error
        return _Verdict(found, store_id, time.monotonic(), era)

    def _state(self, store_id: str | None) -> _State | None:
        marks = self._store.marks()
        if store_id in marks:
            return "known"
        if not self._ledger.has_settled():
            return "new"
        holds_some = any(self._store.has_collection(info.collection) for info in self._ledger.versions())
        if store_id is None and holds_some:
            return "new"
        if self._store.rebuilt_if_empty and not marks and not holds_some:
            return "emptied"
        return None

    def _refusal(self, store_id: str | None) -> StoreUnknown:
        mark = "one of the ledger's collections" if store_id is None else f"the mark vitrine_store_{store_id}"
        error = StoreUnknown(
            f"the Milvus at milvus.uri is not the one that holds the catalog's embeddings: {mark} is not in it; "
            "correct the address, or, if the collections are lost, confirm that with `vitrine adopt`, and all "
            "images are encoded anew"
        )
        if not self._logged:
            self._logged = True
            # The address appears in logs only.
            logger.error("%s refused: %s", self._store.address, error.message)
        return error
