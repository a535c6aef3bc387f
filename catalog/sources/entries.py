"""What every source yields."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.errors import VitrineError
from core.types import Attributes

PictureReference = Path | str
"""Where a picture is: a file that the source may name, or a URL."""


@dataclass(frozen=True, slots=True)
class Record:
    """A product as its source describes it; `pictures=None`: the source says nothing of pictures."""

    product_id: str
    title: str
    description: str
    attributes: Attributes
    pictures: tuple[PictureReference, ...] | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a source: a product, or why there is none.

    `row` counts from 1. `position` is what the source goes on behind when it is asked again. `product_id`
    is known of a broken row too, where the row says it.
    """

    row: int
    position: str
    product_id: str | None
    content: Record | VitrineError


class Source(Protocol):
    """A catalogue to import from. Blocking."""

    @property
    def version(self) -> str:
        """What changes with the source's content, so that a position in another version is not used."""
        ...

    def total(self) -> int | None:
        """Count the rows, as far as that can be known before they are read."""
        ...

    def entries(self, after: str | None) -> Iterator[Entry]:
        """Yield the rows in an order that stays, those behind the position `after`.

        Raises:
            InvalidInput: the source as a whole cannot be read.
            FetchFailed: its server failed for longer than was borne.
        """
        ...
