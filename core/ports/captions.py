"""What models have written about pictures."""

from collections.abc import Sequence
from typing import Protocol

from core.errors import VitrineError
from core.types import Caption, CaptionCounts, Picture


class Captions(Protocol):
    """What models have written about pictures: one row a picture and model. Blocking; safe from anywhere.

    A picture's bytes never change under its id, so a caption is out of date only when other weights or
    settings write captions under the model's name, which is what `fingerprint` tells.
    """

    def missing(self, model: str, fingerprint: str, limit: int) -> list[Picture]:
        """Pictures that this version has neither captioned nor failed on, oldest revision first."""
        ...

    def put(self, model: str, fingerprint: str, captions: Sequence[tuple[str, str]]) -> None:
        """Store captions durably, each after its image id, in the place of the model's former ones."""
        ...

    def fail(self, model: str, fingerprint: str, errors: Sequence[tuple[str, VitrineError]]) -> None:
        """Put these pictures, by image id, into quarantine for this version; a former caption stays."""
        ...

    def quarantined(self, model: str, limit: int) -> tuple[int, dict[str, str]]:
        """Count the pictures that the model has failed on; with the products of the first by image id."""
        ...

    def retry(self, model: str) -> int:
        """Take all pictures of the model out of quarantine, so that they are missing; counts them."""
        ...

    def retry_bugs(self, model: str) -> int:
        """Take out of quarantine what met a bug of another release of Vitrine; counts them."""
        ...

    def of(self, image_ids: Sequence[str]) -> dict[str, list[Caption]]:
        """The captions of these pictures by image id, newest first; pictures without one are left out."""
        ...

    def counts(self, model: str, fingerprint: str) -> CaptionCounts:
        """Count pictures, and those that this version has captioned, failed on and not seen yet."""
        ...

    def forget_gone(self) -> int:
        """Drop the rows of pictures that the catalog does not hold any more; counts them."""
        ...
