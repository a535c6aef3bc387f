"""Milvus's own import of files, for collections that are filled in bulk.

An import appends: rows whose keys are there already come twice, and one that is asked for twice brings all
of them twice. So what came of it is counted, and `put` makes it right (tried on Milvus 2.3.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymilvus import BulkInsertState, MilvusClient

from core.errors import ConfigError
from core.portions import parts
from milvus.filters import key_in
from milvus.row_files import Rows
from milvus.schema import chunks
from milvus.store import MilvusStore

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
        for part in parts(keys, _KEYS_A_CALL):
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
