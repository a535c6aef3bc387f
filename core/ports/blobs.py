"""Where picture files are kept."""

from typing import Protocol


class Blobs(Protocol):
    """Picture files by the sha256 of their bytes. Blocking; safe to call from several threads."""

    def put(self, data: bytes) -> str:
        """Store durably and return the lower-case hex sha256; storing the same bytes again is free."""
        ...

    def get(self, sha256: str) -> bytes:
        """Read back; NotFound when missing."""
        ...

    def size(self, sha256: str) -> int | None:
        """Tell how many bytes a file has now; None when missing."""
        ...
