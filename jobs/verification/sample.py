"""A share of pictures that anybody can draw again: by a hash, so that nothing has to be remembered."""

import hashlib
from dataclasses import dataclass

_STEPS = 2**64


@dataclass(frozen=True, slots=True)
class Sample:
    """About `percent` of all row keys; another seed draws others."""

    percent: float
    seed: int

    def __contains__(self, key: str) -> bool:
        drawn = hashlib.blake2b(f"{self.seed}:{key}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn) < _STEPS * self.percent / 100
