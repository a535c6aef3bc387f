"""Repairs of what differs: never more is dropped than what can be made again from catalog and files."""

from collections.abc import Iterable

from catalog.opening import Catalog
from core.index_rows import IndexRows
from core.ports import VectorStore
from core.types import IndexItem
from jobs.verification.differences import Findings
from jobs.verification.rows import GRACE_S

_KEYS_A_CALL = 500


def repair_rows(catalog: Catalog, store: VectorStore, collection: str, findings: Findings) -> None:
    """Bring ledger and collection in step; what is then missing, a build or the repair encodes anew."""
    if findings.of("missing_collection", collection):
        catalog.ledger.reset(collection)
        return
    rows = IndexRows(store, catalog.ledger)
    for keys in _portions(findings.of("lost_vector", collection) + findings.of("changed_vector", collection)):
        # Open rows are missing: the vector is written again under the same key.
        catalog.ledger.open(collection, [_item(key) for key in keys])
    for keys in _portions(findings.of("orphan_vector", collection)):
        # Announced first: should the service write the same row now, it becomes missing, and is not lost.
        catalog.ledger.open(collection, [_item(key) for key in keys if _is_row_key(key)])
        rows.remove(collection, keys)
    if findings.of("quarantined_picture", collection):
        catalog.ledger.retry(collection)
    if findings.of("obsolete_row", collection):
        rows.remove_obsolete(collection, grace_s=GRACE_S)


def _item(key: str) -> IndexItem:
    """The picture of a row, as far as announcing the row needs it."""
    image_id, _, revision = key.rpartition(":")
    return IndexItem(image_id, int(revision), "", "", {})


def _is_row_key(key: str) -> bool:
    """Tell whether somebody of this service can have written the row."""
    revision = key.rpartition(":")[2]
    return revision.isascii() and revision.isdecimal() and int(revision) < 2**63


def _portions(keys: list[str]) -> Iterable[list[str]]:
    return (keys[start : start + _KEYS_A_CALL] for start in range(0, len(keys), _KEYS_A_CALL))
