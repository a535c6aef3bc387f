"""JSON lines as a table: read twice, first for its size and the names of its fields."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from catalog.sources.field_map import Row
from core.errors import InvalidInput

_MAX_LINE_BYTES = 2**20


class JsonlRows:
    """Implements `Rows`: one object a line, in UTF-8; empty lines are passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        names: set[str] = set()
        self.total = 0
        for row in self.rows(0):
            self.total += 1
            if not isinstance(row, InvalidInput):
                names.update(row)
        if not names:
            raise InvalidInput("the manifest holds no JSON object; write one a line").at("source.path")
        self.columns = sorted(names)

    def rows(self, skip: int) -> Iterator[Row | InvalidInput]:
        """Yield the rows behind the first `skip`."""
        return islice(self._parsed(), skip, None)

    def convert(self, _column: str, value: Any) -> Any:
        """JSON has types of its own."""
        return value

    def _parsed(self) -> Iterator[Row | InvalidInput]:
        with open(self._path, "rb") as file:
            is_first = True
            while line := file.readline(_MAX_LINE_BYTES + 1):
                if len(line) > _MAX_LINE_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(_MAX_LINE_BYTES)
                    yield InvalidInput(f"the line is longer than {_MAX_LINE_BYTES:,} bytes")
                    continue
                if is_first:
                    line, is_first = line.removeprefix(b"\xef\xbb\xbf"), False
                if line.strip():
                    yield _parse(line)


def _parse(line: bytes) -> Row | InvalidInput:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return InvalidInput("the line is not JSON in UTF-8")
    return found if isinstance(found, dict) else InvalidInput("the line is not a JSON object")
