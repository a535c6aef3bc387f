"""How long a job is followed while the service does not answer, as during its restart."""

import time
from dataclasses import dataclass, field

from vitrine.errors import TryLater


@dataclass(slots=True)
class Patience:
    """Bears failures in a row for `limit_s` seconds."""

    limit_s: float
    _since: float | None = field(default=None, init=False)

    def bear(self, error: TryLater) -> None:
        """Take a failure in.

        Raises:
            TryLater: the failures last too long.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self.limit_s:
            raise error

    def reward(self) -> None:
        """Forget the failures: there was an answer."""
        self._since = None
