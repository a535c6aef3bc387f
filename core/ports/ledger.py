"""Which picture is in which collection."""

from collections.abc import Sequence
from typing import Protocol

from core.errors import VitrineError
from core.types import EncoderInfo, IndexItem, LedgerCounts, Removal


class Ledger(Protocol):
    """Which picture, at which revision, is in which collection. Blocking; safe from anywhere.

    A row is opened before the vector is written and settled after it, so every vector that may exist
    in Milvus has a row here; one anti-join against the pictures finds all that is missing or obsolete.
    """

    def register(self, info: EncoderInfo) -> None:
        """Remember a model version, so that its collection is counted and cleaned."""
        ...

    def versions(self) -> list[EncoderInfo]:
        """List all registered model versions, oldest first."""
        ...

    def missing(self, collection: str, limit: int, grace_s: float = 0.0) -> list[IndexItem]:
        """Pictures whose current revision has no settled row, except those opened within `grace_s`."""
        ...

    def missing_between(
        self, collection: str, first: str, beyond: str, limit: int, grace_s: float = 0.0
    ) -> list[IndexItem]:
        """What is missing of the pictures with `first <= image id < beyond`, in the order of their ids."""
        ...

    def items(self, product_id: str) -> list[IndexItem]:
        """The pictures of one product as they should be indexed; empty when the product is missing."""
        ...

    def open(self, collection: str, items: Sequence[IndexItem]) -> None:
        """Announce that these rows are about to be written."""
        ...

    def settle(self, collection: str, items: Sequence[IndexItem]) -> list[IndexItem]:
        """Record that these rows are in; returns those that became obsolete meanwhile, or whose row vanished."""
        ...

    def fail(self, collection: str, errors: Sequence[tuple[IndexItem, VitrineError]]) -> None:
        """Put these pictures into quarantine with their errors."""
        ...

    def retry(self, collection: str) -> int:
        """Take all pictures of the collection out of quarantine, so that they are missing; counts them."""
        ...

    def retry_bugs(self, collection: str) -> int:
        """Take out of quarantine what met a bug of another release of Vitrine; returns how many."""
        ...

    def obsolete(self, collection: str, limit: int, grace_s: float = 0.0) -> list[str]:
        """Row keys whose picture is gone or has a newer revision, except rows opened within `grace_s`."""
        ...

    def obsolete_between(
        self, collection: str, first: str, beyond: str, limit: int, grace_s: float = 0.0
    ) -> list[str]:
        """What is obsolete of the rows with `first <= image id < beyond`."""
        ...

    def begin_removal(self, collection: str, keys: Sequence[str], grace_s: float) -> Removal:
        """Open these rows; returns those whose vectors may be deleted.

        A current picture's is not among them: its row becomes missing. Nor are those that somebody else opened
        within `grace_s`.
        """
        ...

    def end_removal(self, collection: str, removal: Removal) -> None:
        """Drop the rows whose vectors were deleted, but those that somebody has touched since it began."""
        ...

    def reset(self, collection: str) -> None:
        """Open all rows of a collection that Milvus does not hold any more, or perhaps does not hold."""
        ...

    def store_id(self) -> str | None:
        """Read the id that marks the store which the ledger speaks of; None while it speaks of none."""
        ...

    def make_store_id(self) -> str:
        """Read the id of the store, made now where there is none; callers at once get the same."""
        ...

    def has_settled(self) -> bool:
        """Tell whether any row of any collection is settled."""
        ...

    def forget_store(self, store_id: str | None) -> None:
        """Forget the store and open all rows, unless the id is another than this one meanwhile."""
        ...

    def indexed(self, collection: str, keys: Sequence[str]) -> set[str]:
        """Of these row keys, those that are settled without an error."""
        ...

    def settled(self, collection: str, image_ids: Sequence[str]) -> dict[str, str]:
        """Of these pictures, by image id, the key of the newest row that is settled, at whatever revision."""
        ...

    def counts(self, collection: str) -> LedgerCounts:
        """Count pictures, indexed, failed and missing for one collection."""
        ...
