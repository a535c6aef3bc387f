"""Bulk import: Parquet files in Milvus's layout, and Milvus's own import of them.

A column for each field, of the types that Milvus reads them from (pymilvus, bulk_writer/constants.py): text
for VARCHAR and, as JSON, for JSON; a list of 32-bit floats for the vector. There is no `$meta` column, since
our collections have no dynamic field.

An import appends: rows whose keys are there already come twice, and one that is asked for twice brings all
of them twice. So what came of it is counted, and `put` makes it right (tried on Milvus 2.3.5).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import BulkInsertState, MilvusClient

from core.batching import batched
from core.errors import ConfigError, InvalidInput
from core.types import VectorRow
from milvus.filters import key_in
from milvus.schema import chunks, encode_rows
from milvus.store import MilvusStore

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


_KEYS_A_CALL = 1000
_TASKS_LISTED = 10_000
_FAILED = (BulkInsertState.ImportFailed, BulkInsertState.ImportFailedAndCleaned)
_ENDED = (*_FAILED, BulkInsertState.ImportCompleted)


@dataclass(frozen=True, slots=True)
class ImportState:
    """How far an import is; `failure` is Milvus's reason where it has failed."""

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

        def begin(client: MilvusClient, left_s: float) -> int:
            # The one file: of several Parquet files in a task Milvus refuses all.
            return int(client._get_connection().do_bulk_insert(collection, "", [path], timeout=left_s))

        return self._connection.call(begin)

    def import_state(self, task: int) -> ImportState:
        """Ask how far an import is."""

        def ask(client: MilvusClient, left_s: float) -> Any:
            return client._get_connection().get_bulk_insert_state(task, timeout=left_s)

        return _state(self._connection.call(ask))

    def imports_under_way(self, collection: str) -> int:
        """Count the imports into a collection that have not ended, whoever began them."""

        def ask(client: MilvusClient, left_s: float) -> list[Any]:
            found = client._get_connection().list_bulk_insert_tasks(_TASKS_LISTED, collection, timeout=left_s)
            return list(found)

        return sum(not _state(task).ended for task in self._connection.call(ask))

    def show_imported(self, collection: str) -> None:
        """Let searches find what was imported; until then a loaded collection does not."""

        def refresh(client: MilvusClient, left_s: float) -> None:
            client.refresh_load(collection, timeout=left_s)

        self._connection.call(refresh, self._config.build_timeout_s)

    def count_rows(self, collection: str, keys: Sequence[str]) -> int:
        """Count the rows with these keys; more than there are keys where some come twice."""
        counted = 0
        for part in batched(keys, _KEYS_A_CALL):
            found = self._query(collection, key_in(part), ["count(*)"], consistency_level="Strong")
            counted += int(found[0]["count(*)"])
        return counted

    def put(self, collection: str, rows: Rows) -> None:
        """Write rows as they stand in a file; afterwards each key is there once."""
        for chunk in chunks(rows, self._describe(collection)[0]):
            self._upsert(collection, chunk)
        self._wait_until_seen(collection)


def _state(task: Any) -> ImportState:
    failed = task.state in _FAILED
    return ImportState(task.state in _ENDED, (task.failed_reason or "no reason") if failed else None)
