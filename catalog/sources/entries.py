"""Entries that every source yields, and the mapping from a table's row to a product."""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from core.errors import InvalidInput, VitrineError
from core.filters import MAX_WHOLE
from core.sources import AttributeType, Fields
from core.types import Attributes

ImageReference = Path | str
"""Location of an image: a file that the source may name, or a URL."""


@dataclass(frozen=True, slots=True)
class Record:
    """A product as its source describes it; `images=None`: the source has no images field."""

    product_id: str
    title: str
    description: str
    attributes: Attributes
    images: tuple[ImageReference, ...] | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a source: a product, or the error of the row.

    `row` counts from 1. A later call of `entries` with this `position` continues behind the row. A broken row has
    its `product_id` too, if the id can be read.
    """

    row: int
    position: str
    product_id: str | None
    content: Record | VitrineError


class Source(Protocol):
    """A catalog to import from. Blocking."""

    @property
    def version(self) -> str:
        """A text that changes with the source's content: positions are valid within one version only."""
        ...

    def total(self) -> int | None:
        """Count the rows; None if the number is unknown before they are read."""
        ...

    def entries(self, after: str | None) -> Iterator[Entry]:
        """Yield the rows behind the position `after`, in an order that never changes.

        Raises:
            InvalidInput: the source as a whole cannot be read.
            FetchFailed: its server failed in all attempts.
        """
        ...

    def report(self) -> dict[str, Any]:
        """Describe how the source is read, and what is left out; JSON."""
        ...


Row = Mapping[str, Any]
Locate = Callable[[str], ImageReference]
"""Converts a text to an image's reference; raises InvalidInput if the source may not name it."""

_TRUTHS = {"true": True, "false": False}
_BETWEEN_IMAGES = re.compile(r"\||[,;\s]\s*(?=https?://)")
_USUAL_COLUMNS: Mapping[str, Sequence[str]] = {
    # An id before a SKU: shops leave SKUs empty, and an id never.
    "product_id": ("product_id", "handle", "url_handle", "id", "item_id", "sku", "variant_sku"),
    "title": ("title", "name", "product_name", "item_name", "product_title"),
    "description": (
        "description", "body_html", "body", "long_description", "product_description", "short_description"
    ),
    "attributes": ("attributes",),
    "images": (
        "images", "image", "image_src", "image_link", "additional_image_link", "image_url", "image_urls",
        "product_image_url", "base_image", "additional_images",
        *(f"image{between}{number}" for number in range(1, 21) for between in ("", "_")),
        "variant_image", "variant_image_url",
    ),
}  # fmt: skip
"""Column names in exports of Shopify, WooCommerce, Magento and Etsy and in feeds for Google Merchant. The most
certain come first."""
_USUAL_NAMES = frozenset(name for names in _USUAL_COLUMNS.values() for name in names)


def plain_name(column: str) -> str:
    """Return a column's name in lower case with underscores: `body_html` for `Body (HTML)`."""
    return re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_").removeprefix("g_")


def is_usual_column(column: str) -> bool:
    """Return whether exports of shops use this name for a column."""
    return plain_name(column) in _USUAL_NAMES


def kind_of(value: Any, is_text: bool) -> AttributeType | None:
    """Return the type that a value can have; None for an empty one.

    `is_text`: the format holds text only. Then a text counts as a number if the number, written back, is the same
    text.
    """
    if isinstance(value, str):
        text = value.strip()
        if is_text and text.lower() in _TRUTHS:
            return "boolean"
        with suppress(ValueError):
            number = _number(text)
            if is_text and str(number) == text and (isinstance(number, float) or abs(number) <= MAX_WHOLE):
                return "number"
        return "text" if text else None
    if value is None or isinstance(value, bool):
        return None if value is None else "boolean"
    return "number" if isinstance(value, int | float) else "text"


def _number(text: str) -> int | float:
    number = int(text) if re.fullmatch("-?[0-9]{1,20}", text) else float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _typed(name: str, value: Any, kind: AttributeType | None) -> Any:
    if isinstance(value, list):
        return [_typed(name, item, kind) for item in value]
    if kind == "text" and not isinstance(value, str | None):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if kind is None or kind == "text" or not isinstance(value, str) or not value.strip():
        return value
    try:
        return _TRUTHS[value.strip().lower()] if kind == "boolean" else _number(value.strip())
    except (KeyError, ValueError):
        raise InvalidInput(f"{name!r:.100} is no {kind}: {value!r:.100}") from None


class FieldMap:
    """Reads products from rows by the names of their columns.

    `kinds` are the types of attributes by column. `usual` are the usual column names by field. The names and types
    in `fields` take precedence over both.

    Raises:
        InvalidInput: a column that the fields name is not among `columns`; the message lists them.
    """

    def __init__(
        self,
        fields: Fields,
        columns: Collection[str],
        locate: Locate,
        kinds: Mapping[str, AttributeType],
        usual: Mapping[str, Sequence[str]] = _USUAL_COLUMNS,
    ) -> None:
        self._columns = columns
        self._locate = locate
        self._separator = fields.images_separator
        plain = {plain_name(column): column for column in reversed(list(columns))}

        def found(field: str, named: Sequence[str | None]) -> list[str]:
            if None not in named:
                return [self._existing(str(name), field) for name in named]
            return [plain[name] for name in usual[field] if name in plain]

        def first(field: str) -> str | None:
            return next(iter(found(field, [getattr(fields, field)])), None)

        self._product_id = first("product_id") or self._existing("product_id", "product_id")
        self._title, self._description = first("title"), first("description")
        self._attributes = first("attributes")
        self._images = found("images", [None] if fields.images is None else fields.images)
        self._kinds = {**kinds, **fields.types}
        found("types", list(fields.types))
        named = [self._product_id, self._title, self._description, self._attributes, *self._images]
        heads = {name if name in columns else name.partition(".")[0] for name in named if name is not None}
        self._others = [name for name in columns if name not in heads]
        self._rest = frozenset(self._others if fields.rest_as_attributes else ())
        self.columns_read = heads | self._rest

    def report(self) -> dict[str, Any]:
        """Describe how each column is read; JSON."""
        attributes = [
            *filter(None, [self._attributes]),
            *(name for name in self._others if name in self._rest),
        ]
        return {
            "product_id": self._product_id,
            "title": self._title,
            "description": self._description,
            "images": self._images,
            "attributes": {name: self._kinds.get(name, "as in the file") for name in attributes},
            "columns_left_out": [name for name in self._others if name not in self._rest][:100],
        }

    def product_id(self, row: Row) -> str:
        """Read the product's id without surrounding whitespace; an integer becomes its digits.

        Raises:
            InvalidInput: there is none.
        """
        value = _plain(_look_up(row, self._product_id))
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise InvalidInput(f"the row has no product id in {self._product_id!r:.100}")
        return str(value).strip()

    def record(self, row: Row) -> Record:
        """Read the product.

        Raises:
            InvalidInput: a field is not what it should be.
        """
        rest = (
            (name, _typed(name, _plain(row[name]), self._kinds.get(name)))
            for name in row
            if name in self._rest
        )
        return Record(
            self.product_id(row),
            self._text(row, self._title),
            self._text(row, self._description),
            {name: value for name, value in rest if value not in (None, "", [])} | self._object(row),
            self._images_of(row),
        )

    def _existing(self, name: str, field: str) -> str:
        if name in self._columns or name.partition(".")[0] in self._columns:
            return name
        known = ", ".join(map(repr, sorted(self._columns))) or "none"
        message = f"there is no column {name!r:.100}; columns: {known:.2000}"
        raise InvalidInput(message).at(f"source.fields.{field}")

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
            with suppress(ValueError, RecursionError):
                value = json.loads(value)
        if value in (None, ""):
            return {}
        if not isinstance(value, Mapping):
            raise InvalidInput(f"{self._attributes!r:.100} is neither an object nor its JSON")
        return {key: plain for key, item in value.items() if (plain := _plain(item)) is not None}

    def _images_of(self, row: Row) -> tuple[ImageReference, ...] | None:
        names = [name for name in self._images if name in row or name.partition(".")[0] in row]
        if not names:
            return None
        texts = [text for name in names for text in self._image_texts(name, _look_up(row, name))]
        return tuple(self._locate(text) for text in dict.fromkeys(texts))

    def _image_texts(self, name: str, value: Any) -> list[str]:
        parts = _plain(value)
        if parts is None:
            return []
        if isinstance(parts, str):
            parts = self._split(name, parts)
        if not isinstance(parts, list) or not all(isinstance(part, str | None) for part in parts):
            raise InvalidInput(f"{name!r:.100} must be a path, a URL or a list of these")
        return [part.strip() for part in parts if part and part.strip()]

    def _split(self, name: str, text: str) -> Any:
        if self._separator is not None:
            return text.split(self._separator)
        if text.startswith('["'):
            with suppress(ValueError, RecursionError):
                return json.loads(text)
        # Magento separates paths by commas. In other exports, a file's name may hold a comma.
        return text.split(",") if plain_name(name) == "additional_images" else _BETWEEN_IMAGES.split(text)


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
    """Convert a table's value to a JSON value; a missing one is None.

    Raises:
        InvalidInput: bytes, as some writers of Parquet store texts, are not UTF-8.
    """
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InvalidInput("a cell holds bytes that are not text in UTF-8") from None
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID | timedelta):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain for item in value if (plain := _plain(item)) is not None]
    return value


def read_entry(fields: FieldMap, row: Row | InvalidInput, number: int, position: str) -> Entry:
    """Make an entry of a row; the content of a broken row is its error."""
    product_id: str | None = None
    try:
        if isinstance(row, InvalidInput):
            raise row
        product_id = fields.product_id(row)
        content: Record | VitrineError = fields.record(row)
    except VitrineError as error:
        content = error
    return Entry(number, position, product_id, content)
