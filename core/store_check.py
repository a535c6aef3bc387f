"""The check that Milvus is the one that the ledger speaks of, so that a wrong address resets nothing."""

import logging
import time
from typing import Literal

from core.errors import StoreUnknown
from core.ports import Ledger, VectorStore

_GOOD_FOR_S = 30.0
_State = Literal["known", "new", "emptied"]

logger = logging.getLogger(__name__)


class StoreCheck:
    """Compares the id that the ledger keeps with the marks in the store. Blocking; safe from several threads.

    A store without the mark is taken as new while the ledger says that nothing is settled, or while the
    ledger has no id yet, as after an update, and the store holds one of its collections. One that was
    emptied is filled anew without asking where `rebuilt_if_empty` says so. Any other is refused.
    """

    def __init__(self, store: VectorStore, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._known_until = 0.0
        self._logged = False

    def require(self) -> None:
        """Return unless the store is refused; writes nothing, and asks the store twice a minute.

        Raises:
            StoreUnknown: the store is not the ledger's; the message says what was expected and what to do.
            Unavailable: the store or the ledger does not answer.
        """
        if time.monotonic() >= self._known_until:
            self._look()

    def take(self) -> None:
        """Return once the store is marked as the ledger's; same errors as `require`."""
        if time.monotonic() < self._known_until:
            return
        while True:
            state, store_id = self._look()
            if state == "known":
                return
            if state == "emptied":
                logger.warning("%s is empty: all that it held is encoded anew", self._store.address)
                self._ledger.forget_store(store_id)
            self._store.set_mark(self._ledger.make_store_id())

    def look_again(self) -> None:
        """Forget that the store was found to be the ledger's."""
        self._known_until = 0.0

    def _look(self) -> tuple[_State, str | None]:
        while True:
            store_id = self._ledger.store_id()
            state = self._state(store_id)
            if state is not None:
                break
            # Another process may have taken the store since.
            if self._ledger.store_id() == store_id:
                raise self._refusal(store_id)
        self._logged = False
        if state == "known":
            self._known_until = time.monotonic() + _GOOD_FOR_S
        return state, store_id

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
            # The address is for the logs alone.
            logger.error("%s refused: %s", self._store.address, error.message)
        return error
