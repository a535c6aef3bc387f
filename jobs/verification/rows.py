"""Whether a collection holds what the ledger says, and the ledger what the catalog says."""

from collections.abc import Callable, Collection, Mapping, Sequence

from catalog.opening import Catalog
from core.errors import NotFound
from core.ports import VectorStore
from jobs.verification.differences import Findings

_KEYS_A_CALL = 500
GRACE_S = 15.0
"""What somebody has begun to write since so long is not held to be missing, in seconds."""


def compare_rows(
    catalog: Catalog,
    store: VectorStore,
    collection: str,
    pictures: Collection[str],
    configured: bool,
    findings: Findings,
) -> list[str]:
    """Compare the keys of all three; returns those that are in, and may be compared vector by vector.

    `pictures` are the row keys of the catalog. The service writes meanwhile: whatever seems to differ is
    looked at once more before it counts.
    """
    # Milvus first: whatever it holds was announced in the ledger before it was written.
    stored = _keys(store, collection)
    states = dict(catalog.audit.rows(collection))
    settled = {key for key, state in states.items() if state == "settled"}
    if stored is None:
        if states or configured:
            findings.add("missing_collection", collection, settled or [collection])
        return []
    lost = _still_settled(catalog, collection, _absent(store, collection, sorted(settled - stored)))
    findings.add("lost_vector", collection, lost)
    findings.add("orphan_vector", collection, _orphans(catalog, store, collection, stored - set(states)))
    findings.add("obsolete_row", collection, _obsolete(catalog, collection))
    findings.add(
        "quarantined_picture",
        collection,
        {key for key, state in states.items() if state == "failed" and key in pictures},
    )
    if configured:
        missing = catalog.ledger.missing(collection, max(1, len(pictures)), GRACE_S)
        findings.add("missing_picture", collection, {item.key for item in missing})
    return sorted(settled & stored & set(pictures))


def check_files(
    catalog: Catalog, files: Mapping[str, tuple[str, int]], findings: Findings, check: Callable[[], None]
) -> None:
    """Look whether every picture's file is there and as long as it should be; `files` by row key.

    `check` is called before every look, to end the work by raising.
    """
    missing: list[str] = []
    damaged: list[str] = []
    for key, (sha256, size) in files.items():
        check()
        found = catalog.blobs.size(sha256)
        if found is None:
            missing.append(key)
        elif found != size:
            damaged.append(key)
    findings.add("missing_file", "", missing)
    findings.add("damaged_file", "", damaged)


def _keys(store: VectorStore, collection: str) -> set[str] | None:
    try:
        return set(store.keys(collection))
    except NotFound:
        return None


def _absent(store: VectorStore, collection: str, keys: Sequence[str]) -> list[str]:
    held: set[str] = set()
    for start in range(0, len(keys), _KEYS_A_CALL):
        held.update(store.fetch(collection, keys[start : start + _KEYS_A_CALL]))
    return [key for key in keys if key not in held]


def _still_settled(catalog: Catalog, collection: str, keys: Sequence[str]) -> set[str]:
    return catalog.ledger.indexed(collection, keys)


def _orphans(catalog: Catalog, store: VectorStore, collection: str, keys: Collection[str]) -> set[str]:
    strange = sorted(set(keys) - catalog.audit.known(collection, sorted(keys)))
    return set(strange) - set(_absent(store, collection, strange))


def _obsolete(catalog: Catalog, collection: str) -> list[str]:
    return catalog.ledger.obsolete(collection, 2**31 - 1, GRACE_S)
