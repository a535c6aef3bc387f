"""An encoder as its callers see it, near or far."""

from collections.abc import Sequence
from typing import Protocol

from core.types import Captioned, Encoded, EncoderInfo, EncoderInput


class EncoderClient(Protocol):
    """An encoder, near or behind a Serve handle."""

    name: str

    async def describe(self) -> EncoderInfo:
        """Say which version serves.

        Raises:
            ModelUnavailable: no replica answers.
        """
        ...

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed pictures and words; each input succeeds or fails alone.

        Raises:
            ModelUnavailable: no replica answers.
            DeadlineExceeded: the encoder took too long.
        """
        ...

    async def caption(self, pictures: Sequence[bytes]) -> Captioned:
        """Describe picture files in words; each succeeds or fails alone.

        Raises:
            UnsupportedModality: the encoder writes no captions.
            ModelUnavailable: no replica answers.
            DeadlineExceeded: the encoder took too long.
        """
        ...
