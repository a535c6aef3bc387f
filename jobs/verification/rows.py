"""Whether a collection holds what the ledger says, and the ledger what the catalog says."""

from collections.abc import Collection, Sequence

from catalog.opening import Catalog
from core.index_rows import GRACE_S
from core.portions import parts
from core.ports import VectorStore
from jobs.shards import Shard
from jobs.verification.differences import Differences

_KEYS_A_CALL = 500
_ALL = 2**31 - 1


def compare_rows(
    catalog: Catalog,
    store: VectorStore,
    collection: str,
    shard: Shard,
    pictures: Collection[str],
    configured: bool,
) -> tuple[Differences, list[str]]:
    """Compare the keys of all three in a shard; returns how they differ, and those that are in.

    `pictures` are the row keys of the catalog in that shard. The service writes meanwhile: whatever seems
    to differ is looked at once more before it counts.

    Raises:
        NotFound: Milvus has no such collection.
    """
    # Milvus first: whatever it holds was announced in the ledger before it was written.
    stored = set(store.keys(collection, shard.first, shard.end))
    states = dict(catalog.audit.rows(collection, shard.first, shard.end))
    settled = {key for key, state in states.items() if state == "settled"}
    ledger, within = catalog.ledger, (shard.first, shard.beyond)
    found: Differences = {
        "lost_vector": sorted(
            ledger.indexed(collection, _absent(store, collection, sorted(settled - stored)))
        ),
        "orphan_vector": _orphans(catalog, store, collection, sorted(stored - set(states))),
        "obsolete_row": ledger.obsolete_between(collection, *within, _ALL, GRACE_S),
        "quarantined_picture": [
            key for key, state in states.items() if state == "failed" and key in pictures
        ],
    }
    if configured:
        missing = ledger.missing_between(collection, *within, _ALL, GRACE_S)
        found["missing_picture"] = [item.key for item in missing]
    return found, sorted(settled & stored & set(pictures))


def _absent(store: VectorStore, collection: str, keys: Sequence[str]) -> list[str]:
    held: set[str] = set()
    for some in parts(keys, _KEYS_A_CALL):
        held.update(store.fetch(collection, some))
    return [key for key in keys if key not in held]


def _orphans(catalog: Catalog, store: VectorStore, collection: str, keys: Sequence[str]) -> list[str]:
    known = catalog.audit.known(collection, keys)
    strange = [key for key in keys if key not in known]
    gone = set(_absent(store, collection, strange))
    return [key for key in strange if key not in gone]
