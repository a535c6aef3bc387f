"""Whether the files of pictures are there, and are what they were."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

from catalog.audit import StoredPicture
from catalog.opening import Catalog
from core.errors import NotFound
from core.portions import MAX_READ_BYTES
from core.semaphores import WeightedSemaphore
from jobs.verification.differences import Differences

FILES_AT_ONCE = 32
"""An object store takes long to tell of one file and no longer to tell of many."""
_reading = WeightedSemaphore()
_State = Literal["sound", "missing_file", "damaged_file"]


def check_files(
    catalog: Catalog,
    pictures: Sequence[StoredPicture],
    is_sampled: Callable[[str], bool],
    pool: ThreadPoolExecutor,
) -> Differences:
    """Look whether each picture's file is there and as long as it should be; those sampled are read too."""
    states = list(pool.map(partial(_state, catalog, is_sampled), pictures))
    found: Differences = {"missing_file": [], "damaged_file": []}
    for picture, state in zip(pictures, states, strict=True):
        if state != "sound":
            found[state].append(picture.key)
    return found


def _state(catalog: Catalog, is_sampled: Callable[[str], bool], picture: StoredPicture) -> _State:
    try:
        if is_sampled(picture.key):
            with _reading.holding(picture.bytes, MAX_READ_BYTES):
                data = catalog.blobs.get(picture.sha256)
                return "sound" if hashlib.sha256(data).hexdigest() == picture.sha256 else "damaged_file"
    except NotFound:
        return "missing_file"
    size = catalog.blobs.size(picture.sha256)
    if size is None:
        return "missing_file"
    return "sound" if size == picture.bytes else "damaged_file"
