"""Where the service is, and who asks."""

import os
from dataclasses import dataclass, field

from vitrine.retries import Retries

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client needs to know; `timeout_s` bounds each attempt, in seconds."""

    url: str
    key: str | None = field(repr=False)
    timeout_s: float
    retries: Retries

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def settings(
    url: str | None = None, key: str | None = None, timeout_s: float = 60.0, retries: Retries | None = None
) -> Settings:
    """Complete what is given by VITRINE_URL and VITRINE_KEY.

    Raises:
        ValueError: the URL is none, or the key cannot be sent.
    """
    url = url or os.environ.get("VITRINE_URL") or DEFAULT_URL
    key = key or os.environ.get("VITRINE_KEY") or None
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the URL of the service begins with http:// or https://, unlike {url!r}")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ValueError("a key consists of printable ASCII characters")
    return Settings(url.rstrip("/"), key, timeout_s, retries or Retries())
