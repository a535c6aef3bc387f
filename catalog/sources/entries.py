"""Entries that every source yields, and the map from a row of any table to a product."""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from core.errors import InvalidInput, VitrineError
from core.sources import Fields
from core.types import Attributes

ImageReference = Path | str
"""Where an image is: a file that the source may name, or a URL."""


@dataclass(frozen=True, slots=True)
class Record:
    """A product as its source describes it; `images=None`: the source says nothing of images."""

    product_id: str
    title: str
    description: str
    attributes: Attributes
    images: tuple[ImageReference, ...] | None


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
    """A catalog to import from. Blocking."""

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


Row = Mapping[str, Any]
Locate = Callable[[str], ImageReference]
"""Makes an image's reference of its text; raises InvalidInput where the source may not name it."""

_SHOWN_COLUMNS = 40


class FieldMap:
    """Reads products from rows by the names of their columns.

    `convert` gives the value of an attribute whose cell came as text, by column.

    Raises:
        InvalidInput: a column that the fields name is not among `columns`; the message lists them.
    """

    def __init__(
        self,
        fields: Fields,
        columns: Collection[str],
        locate: Locate,
        convert: Callable[[str, Any], Any] = lambda _, value: value,
    ) -> None:
        self._columns = columns
        self._locate = locate
        self._convert = convert
        self._separator = fields.images_separator
        self._product_id = self._existing(fields.product_id, "product_id")
        self._title = self._chosen(fields.title, "title")
        self._description = self._chosen(fields.description, "description")
        self._attributes = self._chosen(fields.attributes, "attributes")
        self._images = self._image_columns(fields.images)
        self._keeps_rest = fields.rest_as_attributes
        named = (self._product_id, self._title, self._description, self._attributes, *(self._images or ()))
        self._named = {name for name in named if name is not None} | {
            name.partition(".")[0] for name in named if name is not None and name not in columns
        }

    def product_id(self, row: Row) -> str:
        """Read the product's id; a whole number counts as its digits.

        Raises:
            InvalidInput: there is none.
        """
        value = _plain(_look_up(row, self._product_id))
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise InvalidInput(f"the row has no product id in {self._product_id!r:.100}")
        return str(value)

    def record(self, row: Row) -> Record:
        """Read the product.

        Raises:
            InvalidInput: a field is not what it should be.
        """
        return Record(
            self.product_id(row),
            self._text(row, self._title),
            self._text(row, self._description),
            self._rest(row) | self._object(row),
            self._images_of(row),
        )

    def _existing(self, name: str, field: str) -> str:
        if name in self._columns or name.partition(".")[0] in self._columns:
            return name
        known = ", ".join(repr(each) for each in sorted(self._columns)[:_SHOWN_COLUMNS]) or "none"
        raise InvalidInput(f"there is no column {name!r:.100}; columns: {known:.2000}").at(
            f"source.fields.{field}"
        )

    def _chosen(self, name: str | None, default: str) -> str | None:
        if name is None:
            return default if default in self._columns else None
        return self._existing(name, default)

    def _image_columns(self, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is None:
            return next(((name,) for name in ("images", "image") if name in self._columns), None)
        return tuple(self._existing(name, "images") for name in names)

    def _text(self, row: Row, name: str | None) -> str:
        value = None if name is None else _plain(_look_up(row, name))
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InvalidInput(f"{name!r:.100} must be a text")
        return str(value)

    def _object(self, row: Row) -> dict[str, Any]:
        value = None if self._attributes is None else _look_up(row, self._attributes)
        if isinstance(value, str) and value.strip():
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise InvalidInput(f"{self._attributes!r:.100} is neither an object nor its JSON") from None
        if value in (None, ""):
            return {}
        if not isinstance(value, Mapping):
            raise InvalidInput(f"{self._attributes!r:.100} is neither an object nor its JSON")
        return {key: plain for key, item in value.items() if (plain := _plain(item)) is not None}

    def _rest(self, row: Row) -> dict[str, Any]:
        if not self._keeps_rest:
            return {}
        others = ((name, self._convert(name, row[name])) for name in row if name not in self._named)
        return {name: plain for name, value in others if (plain := _plain(value)) not in (None, "")}

    def _images_of(self, row: Row) -> tuple[ImageReference, ...] | None:
        names = [name for name in self._images or () if name in row or name.partition(".")[0] in row]
        if not names:
            return None
        texts = [text for name in names for text in self._image_texts(name, _look_up(row, name))]
        return tuple(self._locate(text) for text in texts)

    def _image_texts(self, name: str, value: Any) -> list[str]:
        parts = value.split(self._separator) if isinstance(value, str) else value
        if parts is None:
            return []
        if not isinstance(parts, list) or not all(isinstance(part, str | None) for part in parts):
            raise InvalidInput(f"{name!r:.100} must be a path, a URL or a list of these")
        return [part.strip() for part in parts if part and part.strip()]


def _look_up(row: Any, name: str) -> Any:
    if isinstance(row, Mapping) and name in row:
        return row[name]
    head, _, rest = name.partition(".")
    if not rest or not isinstance(row, Mapping):
        return None
    inner = row.get(head)
    if isinstance(inner, list):
        return [_look_up(item, rest) for item in inner]
    return _look_up(inner, rest)


def _plain(value: Any) -> Any:
    """A table's value as JSON knows it; what stands for a missing one is None."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [plain for item in value if (plain := _plain(item)) is not None]
    return value
