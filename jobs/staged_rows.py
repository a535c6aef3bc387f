"""Rows that are written into a file, which Milvus imports later."""

from collections.abc import Sequence

from core.index_rows import IndexRows, WrittenRows
from core.ports import Ledger, VectorStore
from core.types import EncoderInfo, VectorRow
from milvus.row_files import RowFile


class StagedRows(IndexRows):
    """Takes rows into a file; the ledger is told of them when Milvus has imported it, and not before."""

    def __init__(self, store: VectorStore, ledger: Ledger, file: RowFile) -> None:
        super().__init__(store, ledger)
        self._file = file

    def _put(self, _info: EncoderInfo, rows: Sequence[VectorRow]) -> WrittenRows:
        self._file.append(rows)
        return WrittenRows([row.item for row in rows])
