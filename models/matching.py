"""What matching keeps of an image, and a cache of it that is bounded by bytes."""

from collections import OrderedDict
from typing import Protocol


class Features(Protocol):
    """What a matching head needs of one image; it does not depend on the text."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes, in bytes."""


class FeatureCache:
    """Features of the images that were used last, by the sha256 of their files. Not thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        """What is larger than `max_bytes` is not kept."""
        self._max_bytes = self._free = max_bytes
        self._kept: OrderedDict[str, Features] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, sha256: str) -> Features | None:
        """Return the features of an image, or None where they are not held."""
        found = self._kept.get(sha256)
        if found is not None:
            self._kept.move_to_end(sha256)
        return found

    def put(self, sha256: str, features: Features) -> None:
        """Keep features; those that were not used for longest make room."""
        if (former := self._kept.pop(sha256, None)) is not None:
            self._free += former.nbytes
        if features.nbytes > self._max_bytes:
            return
        self._kept[sha256] = features
        self._free -= features.nbytes
        while self._free < 0:
            _, oldest = self._kept.popitem(last=False)
            self._free += oldest.nbytes
