"""Repairs of what differs: never more is dropped than what can be made again from catalog and files."""

from catalog.opening import Catalog
from core.index_rows import IndexRows
from core.portions import parts
from core.ports import VectorStore
from core.types import IndexItem
from jobs.verification.differences import Differences

_KEYS_A_CALL = 500


def repair_rows(catalog: Catalog, store: VectorStore, collection: str, found: Differences) -> None:
    """Bring ledger and collection in step; what is then missing, a build or the repair encodes anew."""
    rows = IndexRows(store, catalog.ledger)
    for keys in parts([*found.get("lost_vector", []), *found.get("changed_vector", [])], _KEYS_A_CALL):
        # Open rows are missing: the vector is written again under the same key.
        catalog.ledger.open(collection, [_item(key) for key in keys])
    for keys in parts([*found.get("orphan_vector", []), *found.get("obsolete_row", [])], _KEYS_A_CALL):
        rows.remove(collection, keys)
    if found.get("quarantined_picture"):
        catalog.ledger.retry(collection)


def _item(key: str) -> IndexItem:
    """The picture of a row, as far as announcing the row needs it."""
    image_id, _, revision = key.rpartition(":")
    return IndexItem(image_id, int(revision), "", "", {})
