"""How often each caller may come."""

import time
from collections.abc import Callable

from core.errors import RateLimited

_FEW = 1024
"""So many keys are remembered without a look at which are needed."""


class RateLimiter:
    """A token bucket for each key, in memory: `burst` tokens, refilled at a rate per second.

    It is kept as the generic cell rate algorithm (ITU-T I.371): per key one number, the time at which its
    bucket will be full again. Keys whose bucket is full need no memory, so what is kept is bounded by twice
    the keys that came within the last `burst / requests_per_s` seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._sweep_at = _FEW

    def __len__(self) -> int:
        """Count the keys that are remembered."""
        return len(self._full_at)

    def take(self, key_id: str, requests_per_s: float, burst: int) -> None:
        """Take a token from the bucket of a key.

        Raises:
            RateLimited: the bucket is empty; `retry_after_s` says when the next token is there.
        """
        now = self._clock()
        full_at = max(self._full_at.get(key_id, now), now) + 1 / requests_per_s
        wait_s = full_at - now - burst / requests_per_s
        # A token that is due now must not be refused for the last bit of a sum of floats.
        if wait_s > 1e-9:
            error = RateLimited(
                f"more than {requests_per_s:g} requests per second, or {burst} at once; slow down"
            )
            error.retry_after_s = wait_s
            raise error
        self._full_at[key_id] = full_at
        if len(self._full_at) > self._sweep_at:
            self._full_at = {key: full for key, full in self._full_at.items() if full > now}
            # As many again must come first, so that a request pays for two keys on the average.
            self._sweep_at = max(_FEW, 2 * len(self._full_at))
