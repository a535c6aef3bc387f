"""Rows as Parquet files in the layout that Milvus imports.

A column for each field, of the types that Milvus reads them from (pymilvus, bulk_writer/constants.py): text
for VARCHAR and, as JSON, for JSON; a list of 32-bit floats for the vector. There is no `$meta` column, since
our collections have no dynamic field.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InvalidInput
from core.types import VectorRow
from milvus.schema import encode_rows

LAYOUT = pa.schema(
    [
        ("key", pa.string()),
        ("image_id", pa.string()),
        ("revision", pa.int64()),
        ("product_id", pa.string()),
        ("attributes", pa.string()),
        ("embedding", pa.list_(pa.float32())),
    ]
)
_ROWS_A_GROUP = 1000
"""A reader holds one row group in memory; pymilvus writes no smaller ones."""

Rows = list[dict[str, Any]]
"""Rows as an upsert sends them."""


class RowFile:
    """A file that grows row group by row group; whole once it is closed. Thread-safe."""

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self.rows = 0
        self._dimension = dimension
        self._waiting: Rows = []
        self._lock = Lock()
        self._writer = pq.ParquetWriter(path, LAYOUT)

    def append(self, rows: Sequence[VectorRow]) -> None:
        """Add rows, all or none.

        Raises:
            InvalidInput: a row that an upsert would refuse.
        """
        encoded = encode_rows(rows, self._dimension)
        with self._lock:
            self.rows += len(encoded)
            self._waiting += encoded
            while len(self._waiting) >= _ROWS_A_GROUP:
                self._write(self._waiting[:_ROWS_A_GROUP])
                self._waiting = self._waiting[_ROWS_A_GROUP:]

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        with self._lock:
            if self._waiting:
                self._write(self._waiting)
                self._waiting = []
            self._writer.close()

    def _write(self, rows: Rows) -> None:
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in LAYOUT.names}
        columns["attributes"] = [json.dumps(each, ensure_ascii=False) for each in columns["attributes"]]
        self._writer.write_table(pa.table(columns, schema=LAYOUT), row_group_size=_ROWS_A_GROUP)


def read_rows(file: BinaryIO) -> Iterator[Rows]:
    """Read a file back, a row group at a time.

    Raises:
        InvalidInput: it is not such a file, or was cut short.
    """
    try:
        parquet = pq.ParquetFile(file)
        if not parquet.schema_arrow.equals(LAYOUT):
            raise InvalidInput("a file to import has other columns than a collection")
        for number in range(parquet.num_row_groups):
            yield [_decoded(row) for row in parquet.read_row_group(number).to_pylist()]
    except pa.ArrowException as error:
        raise InvalidInput("a file to import cannot be read") from error


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    embedding = np.asarray(row["embedding"], dtype=np.float32)
    return row | {"attributes": json.loads(row["attributes"]), "embedding": embedding}
