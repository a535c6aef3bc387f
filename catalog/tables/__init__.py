"""The tables of the catalog."""

from catalog.tables.api_keys import ApiKeyRow
from catalog.tables.base import Base
from catalog.tables.captions import CaptionRow
from catalog.tables.documents import DocumentRow
from catalog.tables.imports import ImportedPictureRow, ImportedProductRow, ImportErrorRow, ImportRow
from catalog.tables.jobs import JobRow
from catalog.tables.ledger import EmbeddingRow, IndexStoreRow
from catalog.tables.products import (
    CatalogIdRow,
    FileHoldRow,
    ImageRow,
    ProductRow,
    RevisionFloor,
    UnnamedFileRow,
)
from catalog.tables.versions import ModelVersionRow

__all__ = [
    "ApiKeyRow",
    "Base",
    "CaptionRow",
    "CatalogIdRow",
    "DocumentRow",
    "EmbeddingRow",
    "FileHoldRow",
    "ImageRow",
    "ImportErrorRow",
    "ImportRow",
    "ImportedPictureRow",
    "ImportedProductRow",
    "IndexStoreRow",
    "JobRow",
    "ModelVersionRow",
    "ProductRow",
    "RevisionFloor",
    "UnnamedFileRow",
]
