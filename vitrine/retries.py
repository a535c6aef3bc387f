"""When to send a request again."""

import random
from dataclasses import dataclass

from vitrine.errors import RateLimited, ServiceError, Unavailable, Unreachable


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how patiently a call is repeated that a service could not answer just now.

    After each failure it waits as long as the service asked for, at most `max_wait_s`; where that is not
    said, `first_wait_s`, doubled each time. Only calls that do no harm when they are done twice are repeated.
    """

    count: int = 3
    first_wait_s: float = 0.25
    max_wait_s: float = 30.0

    def wait_s(self, error: ServiceError, failures: int) -> float | None:
        """Say how long to wait after that many failures, in seconds; None: give up."""
        if failures > self.count or not isinstance(error, RateLimited | Unavailable | Unreachable):
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= self.max_wait_s else None
        # Many clients that were turned away at once should not come back at once.
        wait_s = self.first_wait_s * 2.0 ** (failures - 1) * random.uniform(0.75, 1.25)
        return min(wait_s, self.max_wait_s)
