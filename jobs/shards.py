"""Ranges of image ids: image ids are hex digits of a hash, so equal ranges hold about equally many."""

from dataclasses import dataclass
from itertools import pairwise

_DIGITS = 8
_BEYOND_ALL = "g"
_MOST = 4096
"""Ray Data plans each shard as one block; more of them cost planning and win nothing."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The image ids from `first` to before `beyond`."""

    first: str
    beyond: str

    @property
    def end(self) -> str | None:
        """The same as `beyond`, but None in the last shard, for keys that need not be image ids."""
        return None if self.beyond == _BEYOND_ALL else self.beyond


def cut(pictures: int, shard_pictures: int, share: float = 1.0) -> list[Shard]:
    """Cut the first `share` (0 to 1) of all ids so that about `shard_pictures` of `pictures` fall to each."""
    count = max(1, min(_MOST, round(pictures * share / shard_pictures)))
    bounds = [_bound(share * number / count) for number in range(count + 1)]
    return [Shard(first, beyond) for first, beyond in pairwise(bounds)]


def _bound(share: float) -> str:
    if share >= 1:
        return _BEYOND_ALL
    return f"{int(share * 16**_DIGITS):0{_DIGITS}x}"
