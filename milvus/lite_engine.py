"""The Milvus Lite engine with the care that it needs to lose nothing.

What is added to the library (3.2): a storage error is reported to the owner, which then ends; a write
reaches the disk before it is acknowledged; filters read only the columns that they name.
"""

from collections.abc import Callable
from typing import Any

import milvus_lite.search.filter.eval as filter_evaluation
from milvus_lite.db import MilvusLite
from milvus_lite.search.filter.eval.python_backend import evaluate_python

_OWN_COLLECTION = "_vitrine_guarded"


class GuardedLite(MilvusLite):  # type: ignore[misc]
    """An open folder whose storage errors call `on_storage_error` before anything else happens."""

    def __init__(self, folder: str, on_storage_error: Callable[[BaseException], None]) -> None:
        self._on_storage_error = on_storage_error
        super().__init__(folder)
        filter_evaluation.evaluate_python = _evaluate_named_columns

    def preload(self) -> None:
        """Open and load every collection: racing first accesses would open one twice and lose rows."""
        for database in self.list_databases():
            for name in self.list_collections(database):
                self.get_collection(name, database).load()

    def flush_all(self, at_least: int) -> None:
        """Write the collections with that many rows in memory to their files."""
        for collection in list(self._collections.values()):
            if collection.count() >= at_least:
                collection.flush()

    def get_collection(self, *args: Any, **kwargs: Any) -> Any:
        """Open a collection, guarded."""
        return self._guard(super().get_collection(*args, **kwargs))

    def create_collection(self, *args: Any, **kwargs: Any) -> Any:
        """Create a collection, guarded from its first write on."""
        return self._guard(self._watched(super().create_collection, OSError)(*args, **kwargs))

    def drop_collection(self, *args: Any, **kwargs: Any) -> None:
        """Drop a collection; a half-removed folder is a storage error."""
        self._watched(super().drop_collection, OSError)(*args, **kwargs)

    def _save_aliases(self, *args: Any, **kwargs: Any) -> None:
        self._watched(super()._save_aliases, OSError)(*args, **kwargs)

    def _guard(self, collection: Any) -> Any:
        if not hasattr(collection, _OWN_COLLECTION):
            setattr(collection, _OWN_COLLECTION, True)
            collection._apply = self._watched(_synced(collection), Exception)
            collection._trigger_flush = self._watched(collection._trigger_flush, Exception)
            collection._manifest.save = self._watched(collection._manifest.save, Exception)
        return collection

    def _watched(self, work: Callable[..., Any], kind: type[Exception]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            try:
                return work(*args, **kwargs)
            except kind as error:
                self._on_storage_error(error)
                raise

        return watched


def _synced(collection: Any) -> Callable[[Any], None]:
    """The collection's write with fsync; each flush starts a new log, so it is set at each write."""
    apply = collection._apply

    def apply_synced(operation: Any) -> None:
        collection._wal._sync_mode = "batch"
        apply(operation)

    return apply_synced


def _evaluate_named_columns(compiled: Any, data: Any) -> Any:
    """Evaluate a filter without turning every embedding into Python numbers first (6 times faster)."""
    named = [name for name in data.column_names if name in compiled.fields]
    return evaluate_python(compiled, data.select(named))
