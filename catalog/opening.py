"""Open the catalog that the configuration names."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from catalog.api_keys import SqlApiKeys
from catalog.audit import SqlAudit
from catalog.blobs import FsspecBlobs
from catalog.captions import SqlCaptions
from catalog.config import CatalogConfig
from catalog.engine import open_engine
from catalog.image_files import SqlImageFiles
from catalog.imported_pictures import SqlImportedPictures
from catalog.imports import SqlImports
from catalog.index_progress import SqlIndexProgress
from catalog.jobs import SqlJobs
from catalog.ledger import SqlLedger
from catalog.lexical.index import SqlLexicalIndex
from catalog.migrate import migrate
from catalog.products import SqlProducts
from catalog.quarantine import SqlQuarantine
from catalog.versions import SqlVersions


@dataclass(frozen=True, slots=True)
class Catalog:
    """The catalog's parts on one engine; safe to use from several threads."""

    products: SqlProducts
    ledger: SqlLedger
    quarantine: SqlQuarantine
    index_progress: SqlIndexProgress
    versions: SqlVersions
    audit: SqlAudit
    captions: SqlCaptions
    lexical: SqlLexicalIndex
    jobs: SqlJobs
    imports: SqlImports
    imported_pictures: SqlImportedPictures
    api_keys: SqlApiKeys
    image_files: SqlImageFiles
    blobs: FsspecBlobs
    reports: FsspecBlobs
    engine: Engine

    def close(self) -> None:
        """Close the database connections."""
        self.engine.dispose()


def open_catalog(config: CatalogConfig, read_limit_s: Callable[[], float] | None = None) -> Catalog:
    """Open the catalog, created or migrated to this version; several processes may do so at once.

    `read_limit_s` is asked, in the thread that reads, how long a read may take that begins now. Without it a
    read takes as long as it needs.

    Raises:
        ConfigError: the URL of the picture files names an unknown file system.
        Unavailable: the database cannot be opened.
    """
    blobs = FsspecBlobs(config.blobs_url)
    engine = open_engine(config, read_limit_s)
    try:
        migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return Catalog(
        products=SqlProducts(engine, blobs),
        ledger=SqlLedger(engine),
        quarantine=SqlQuarantine(engine),
        index_progress=SqlIndexProgress(engine),
        versions=SqlVersions(engine),
        audit=SqlAudit(engine),
        captions=SqlCaptions(engine),
        lexical=SqlLexicalIndex(engine),
        jobs=SqlJobs(engine, keep_days=config.keep_jobs_days),
        imports=SqlImports(engine),
        imported_pictures=SqlImportedPictures(engine),
        api_keys=SqlApiKeys(engine),
        image_files=SqlImageFiles(engine, blobs),
        blobs=blobs,
        reports=open_reports(config),
        engine=engine,
    )


def open_reports(config: CatalogConfig) -> FsspecBlobs:
    """Open the store of what jobs have written: beside the pictures, and apart, for it is nobody's picture.

    Raises:
        ConfigError: the URL of the picture files names an unknown file system.
    """
    return FsspecBlobs(f"{config.blobs_url.rstrip('/')}/reports")
