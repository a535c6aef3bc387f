"""A table of products as a source: finds columns by their names, and joins the rows of one product."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalog.fetching.texts import is_url
from catalog.sources.entries import Entry, FieldMap, ImageReference, Record, plain_name, read_entry
from catalog.sources.folder import inside
from catalog.sources.table import Table
from core.errors import InvalidInput
from core.sources import ManifestSource

_MAX_GROUP = 5_000
_SHOPIFY_IMAGES = {"option1_name", "image_src", "product_image_url"}


class Manifest:
    """Implements `Source`; the position is the number of the last row.

    Raises:
        InvalidInput: the file does not exist, cannot be read, or lacks a column that `fields` names.
    """

    def __init__(self, source: ManifestSource) -> None:
        path = Path(source.path)
        if not path.is_file():
            raise InvalidInput(f"there is no file {source.path!r:.300}").at("source.path")
        state = path.stat()
        self.version = f"{state.st_size}:{state.st_mtime_ns}"
        self._folder = path.parent
        self._table = Table(
            path.name, lambda: path.open("rb"), source.encoding, source.delimiter, source.escape
        )
        columns = self._table.columns
        self._fields = FieldMap(source.fields, columns, self._locate, self._table.kinds)
        names = {plain_name(column) for column in columns}
        is_shopify = bool(names & {"handle", "url_handle"}) and bool(names & _SHOPIFY_IMAGES)
        self._is_grouped = is_shopify if source.group_rows is None else source.group_rows

    def total(self) -> int | None:
        """Count the rows without the header; None if several rows may be one product."""
        return None if self._is_grouped else self._table.total

    def report(self) -> dict[str, Any]:
        """Describe how each column is read; JSON."""
        return {
            "format": self._table.format,
            **self._fields.report(),
            "rows": self._table.total,
            "rows_are_grouped": self._is_grouped,
        }

    def entries(self, after: str | None) -> Iterator[Entry]:
        """Yield the products: one per row, or one per group of consecutive rows with the same id."""
        skip = int(after or 0)
        entries = (
            read_entry(self._fields, row, number, str(number))
            for number, row in enumerate(self._table.rows(skip, self._fields.columns_read), start=skip + 1)
        )
        return self._grouped(entries) if self._is_grouped else entries

    def _grouped(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        group: list[Entry] = []
        for entry in entries:
            if group and entry.product_id not in (None, group[0].product_id):
                yield _joined(group)
                group = []
            if isinstance(entry.content, Record) and len(group) < _MAX_GROUP:
                group.append(entry)
                continue
            error = InvalidInput(f"more than {_MAX_GROUP:,} rows have this product id")
            content = error if isinstance(entry.content, Record) else entry.content
            # An import that resumes behind the broken row must read the good rows of its product again.
            position = str(group[0].row - 1) if group else entry.position
            yield replace(entry, position=position, content=content)
        if group:
            yield _joined(group)

    def _locate(self, text: str) -> ImageReference:
        if is_url(text):
            return text
        # Magento's paths begin with a slash, and those of Windows have backslashes.
        for path in (text.lstrip("/"), text.replace("\\", "/")):
            with suppress(InvalidInput):
                if path != text and (found := inside(self._folder, path)).is_file():
                    return found
        return inside(self._folder, text)


def _joined(group: Sequence[Entry]) -> Entry:
    """Join rows to one product: the first text that is not empty, all images, and each attribute value once."""
    records = [entry.content for entry in group if isinstance(entry.content, Record)]
    values: dict[str, list[Any]] = {}
    for record in records:
        for name, value in record.attributes.items():
            known = values.setdefault(name, [])
            known += [each for each in (value if isinstance(value, list) else [value]) if each not in known]
    images = [record.images for record in records if record.images is not None]
    joined = Record(
        records[0].product_id,
        next((record.title for record in records if record.title), ""),
        next((record.description for record in records if record.description), ""),
        {name: known[0] if len(known) == 1 else known for name, known in values.items()},
        tuple(dict.fromkeys(each for some in images for each in some)) if images else None,
    )
    return replace(group[0], position=group[-1].position, content=joined)
