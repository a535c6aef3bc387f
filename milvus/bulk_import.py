"""Bulk import: Parquet files in Milvus's layout, and Milvus's own import of them.

A file has a column for each field, of the types that Milvus reads (pymilvus, bulk_writer/constants.py): text
for VARCHAR and, as JSON, for JSON; a list of 32-bit floats for the vector. Our collections have no dynamic
field, so there is no `$meta` column.

pymilvus's own bulk writer (3.0.2) is no replacement. It writes to local folders, S3 and Azure alone, and keeps all
rows as Python floats: 20,000 rows of 1,024 dimensions took 1,056 MB, where `RowFile` takes 69 MB. A write that fails
raises in a thread of its own, so `commit` returns as if the file were there.

An import appends: a row whose key is there already comes twice, and an import that is repeated brings all its
rows twice. So a build counts what came of it, and `put` makes it right (tried on Milvus 2.3.5).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import BulkInsertState, MilvusClient

from core.concurrency import batched
from core.errors import ConfigError, InvalidInput
from core.filters import Kind
from core.types import VectorRow
from milvus.connection import rpc_handler
from milvus.filters import key_in
from milvus.schema import attribute_of, check_field, encode_rows
from milvus.store import KEYS_A_CALL, MilvusStore

_TYPES: Mapping[Kind, pa.DataType] = {"string": pa.string(), "number": pa.float64(), "bool": pa.int8()}
_ROWS_A_GROUP = 1000
"""A reader holds one row group in memory; pymilvus writes no smaller ones."""
_TASKS_LISTED = 10_000
_FAILED = (BulkInsertState.ImportFailed, BulkInsertState.ImportFailedAndCleaned)


def layout(declared: Mapping[str, Kind]) -> pa.Schema:
    """Return the columns of a file for a collection that has fields for these attributes."""
    return pa.schema(
        [
            ("key", pa.string()),
            ("image_id", pa.string()),
            ("revision", pa.int64()),
            ("product_id", pa.string()),
            ("attributes", pa.string()),
            *((check_field(name), _TYPES[kind]) for name, kind in declared.items()),
            *([("part", pa.int8())] if declared else []),
            ("embedding", pa.list_(pa.float32())),
        ]
    )


Rows = list[dict[str, Any]]
"""Rows as an upsert sends them."""


class RowFile:
    """A file that grows row group by row group; whole once it is closed. Thread-safe."""

    def __init__(self, path: Path, dimension: int, declared: Mapping[str, Kind] | None = None) -> None:
        self.path = path
        self.rows = 0
        self._dimension = dimension
        self._declared = declared or {}
        self._layout = layout(self._declared)
        self._waiting: Rows = []
        self._lock = Lock()
        self._writer = pq.ParquetWriter(path, self._layout)

    def append(self, rows: Sequence[VectorRow]) -> None:
        """Add rows, all or none.

        Raises:
            InvalidInput: a row that an upsert would refuse.
        """
        encoded = encode_rows(rows, self._dimension, self._declared)
        with self._lock:
            self.rows += len(encoded)
            self._waiting += encoded
            while len(self._waiting) >= _ROWS_A_GROUP:
                self._write_group()

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        with self._lock:
            if self._waiting:
                self._write_group()
            self._writer.close()

    def _write_group(self) -> None:
        rows, self._waiting = self._waiting[:_ROWS_A_GROUP], self._waiting[_ROWS_A_GROUP:]
        columns = {name: [row[name] for row in rows] for name in self._layout.names}
        self._writer.write_table(pa.table(columns, schema=self._layout), row_group_size=_ROWS_A_GROUP)


def read_rows(file: BinaryIO) -> Iterator[Rows]:
    """Read a file back, a row group at a time.

    Raises:
        InvalidInput: it is not such a file, or was cut short.
    """
    try:
        parquet = pq.ParquetFile(file)
        kinds = {data_type: kind for kind, data_type in _TYPES.items()}
        declared = {
            attribute: kinds.get(each.type, "string")
            for each in parquet.schema_arrow
            if (attribute := attribute_of(each.name)) is not None
        }
        if not parquet.schema_arrow.equals(layout(declared)):
            raise InvalidInput("a file to import has other columns than a collection")
        for number in range(parquet.num_row_groups):
            rows = parquet.read_row_group(number).to_pylist()
            for row in rows:
                row["embedding"] = np.asarray(row["embedding"], dtype=np.float32)
            yield rows
    except pa.ArrowException as error:
        raise InvalidInput("a file to import cannot be read") from error


@dataclass(frozen=True, slots=True)
class ImportState:
    """The state of an import; `failure` is Milvus's reason where it has failed."""

    ended: bool
    failure: str | None


class MilvusImports(MilvusStore):
    """The store of a Milvus server that can also import files from the object store that it reads."""

    def require_server(self) -> None:
        """Refuse Milvus Lite, which imports nothing.

        Raises:
            ConfigError: it is Milvus Lite.
        """
        if self._is_lite():
            raise ConfigError("jobs.bulk.file_import needs a Milvus server: Milvus Lite imports no files")

    def begin_import(self, collection: str, path: str) -> int:
        """Have Milvus import a file, by its path within Milvus's bucket; returns the id of the task."""
        # One file: of several Parquet files in a task Milvus refuses all.
        return int(self._call("do_bulk_insert", collection, "", [path]))

    def import_state(self, task: int) -> ImportState:
        """Ask for the state of an import."""
        return _state(self._call("get_bulk_insert_state", task))

    def imports_under_way(self, collection: str) -> int:
        """Count the imports into a collection that have not ended, whoever began them."""
        tasks = self._call("list_bulk_insert_tasks", _TASKS_LISTED, collection)
        return sum(not _state(task).ended for task in tasks)

    def show_imported(self, collection: str) -> None:
        """Let searches find what was imported; until then a loaded collection does not."""
        self._connection.run(MilvusClient.refresh_load, collection, timeout_s=self._config.build_timeout_s)

    def count_rows(self, collection: str, keys: Sequence[str]) -> int:
        """Count the rows with these keys; more than there are keys where some come twice."""
        return sum(
            self._count(collection, key_in(some), consistency_level="Strong")
            for some in batched(keys, KEYS_A_CALL)
        )

    def put(self, collection: str, rows: Rows) -> None:
        """Write rows as they stand in a file; afterwards each key is there once."""
        self._upsert(collection, rows)

    def _call(self, name: str, *args: Any) -> Any:
        return self._connection.call(
            lambda client, left_s: getattr(rpc_handler(client), name)(*args, timeout=left_s)
        )


def _state(task: Any) -> ImportState:
    failed = task.state in _FAILED
    ended = failed or task.state == BulkInsertState.ImportCompleted
    return ImportState(ended, (task.failed_reason or "no reason") if failed else None)
