"""Checks of image files and of a collection's rows against ledger and catalog, and repairs of rows."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

from catalog.audit import StoredImage
from catalog.opening import Catalog
from core.concurrency import MAX_READ_BYTES, WeightedSemaphore, batched
from core.index_rows import GRACE_S, IndexRows
from core.ports import VectorStore
from core.types import IndexItem
from jobs.build.shards import Shard
from jobs.verification.differences import Differences

FILES_AT_ONCE = 32
"""Files that are checked concurrently: an object store takes as long for one as for many."""
_reading = WeightedSemaphore()
_State = Literal["sound", "missing_file", "damaged_file"]
_KEYS_A_CALL = 500
_ALL = 2**31 - 1


def check_files(
    catalog: Catalog,
    images: Sequence[StoredImage],
    is_sampled: Callable[[str], bool],
    pool: ThreadPoolExecutor,
) -> Differences:
    """Check that each image's file exists with the right size; sampled files are read, too."""
    states = list(pool.map(partial(_state, catalog, is_sampled), images))
    found: Differences = {"missing_file": [], "damaged_file": []}
    for image, state in zip(images, states, strict=True):
        if state != "sound":
            found[state].append(image.key)
    return found


def _state(catalog: Catalog, is_sampled: Callable[[str], bool], image: StoredImage) -> _State:
    found: object
    if is_sampled(image.key):
        with _reading.holding(image.bytes, MAX_READ_BYTES):
            data = catalog.blobs.find(image.sha256)
            found = data and hashlib.sha256(data).hexdigest() == image.sha256
    else:
        size = catalog.blobs.size(image.sha256)
        found = size and size == image.bytes
    return "missing_file" if found is None else "sound" if found else "damaged_file"


def compare_rows(
    catalog: Catalog,
    store: VectorStore,
    collection: str,
    shard: Shard,
    images: Collection[str],
    configured: bool,
) -> tuple[Differences, list[str]]:
    """Compare the keys of catalog, ledger and Milvus in a shard; returns the differences and the keys in all three.

    `images` are the row keys of the catalog in that shard. The service writes meanwhile, so each difference is
    checked a second time before it counts.

    Raises:
        NotFound: Milvus has no such collection.
    """
    # Milvus first: the ledger opens a row before Milvus holds it.
    stored = set(store.keys(collection, shard.first, shard.end))
    states = dict(catalog.audit.rows(collection, shard.first, shard.end))
    settled = {key for key, state in states.items() if state == "settled"}
    ledger, within = catalog.ledger, (shard.first, shard.beyond)
    found: Differences = {
        "lost_vector": sorted(
            ledger.indexed(collection, _absent(store, collection, sorted(settled - stored)))
        ),
        "orphan_vector": _orphans(catalog, store, collection, sorted(stored - set(states))),
        "obsolete_row": ledger.obsolete(collection, _ALL, GRACE_S, within),
        "quarantined_image": [key for key, state in states.items() if state == "failed" and key in images],
    }
    if configured:
        missing = ledger.missing(collection, _ALL, GRACE_S, within)
        found["missing_image"] = [item.key for item in missing]
    return found, sorted(settled & stored & set(images))


def _absent(store: VectorStore, collection: str, keys: Sequence[str]) -> list[str]:
    held: set[str] = set()
    for some in batched(keys, _KEYS_A_CALL):
        held.update(store.fetch(collection, some))
    return [key for key in keys if key not in held]


def _orphans(catalog: Catalog, store: VectorStore, collection: str, keys: Sequence[str]) -> list[str]:
    known = catalog.audit.known(collection, keys)
    strange = [key for key in keys if key not in known]
    gone = set(_absent(store, collection, strange))
    return [key for key in strange if key not in gone]


def repair_rows(catalog: Catalog, store: VectorStore, collection: str, found: Differences) -> None:
    """Make ledger and collection consistent; a build or the repair encodes what is missing then."""
    rows = IndexRows(store, catalog.ledger)
    for keys in batched([*found.get("lost_vector", []), *found.get("changed_vector", [])], _KEYS_A_CALL):
        # Open rows are missing, so the vector is written again under the same key.
        catalog.ledger.open(collection, [_index_item(key) for key in keys])
    for keys in batched([*found.get("orphan_vector", []), *found.get("obsolete_row", [])], _KEYS_A_CALL):
        rows.remove(collection, keys)
    if found.get("quarantined_image"):
        catalog.ledger.retry(collection)


def _index_item(key: str) -> IndexItem:
    """Return the image of a row, with the fields that opening the row needs."""
    image_id, _, revision = key.rpartition(":")
    return IndexItem(image_id, int(revision), "", "", {})
