"""Open the catalog that the configuration names, with its tables migrated to this version."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from catalog.api_keys import SqlApiKeys
from catalog.blobs import FsspecBlobs
from catalog.database import CatalogConfig, open_engine, take_turns, writing
from catalog.image_files import SqlImageFiles
from catalog.imports import SqlImportedImages, SqlImports
from catalog.jobs import SqlJobs
from catalog.keyword_search import SqlKeywordIndex
from catalog.ledger import SqlLedger, SqlVersions
from catalog.ledger_queries import SqlAudit, SqlIndexProgress, SqlQuarantine
from catalog.products import SqlCaptions, SqlProducts

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = (0x7669, 0x7472)
"""PostgreSQL's advisory lock for migrations: keys of two numbers never meet the locks of products."""


def migrate(engine: Engine) -> None:
    """Apply the missing migrations in one transaction; concurrent processes wait for each other.

    Raises:
        Unavailable: the database does not answer.
    """
    with writing(engine) as connection:
        take_turns(connection, _MIGRATION_LOCK)
        command.upgrade(alembic_config(connection), "head")


def drop_tables(engine: Engine) -> None:
    """Revert every migration, which deletes all tables.

    Raises:
        Unavailable: the database does not answer.
    """
    with writing(engine) as connection:
        command.downgrade(alembic_config(connection), "base")


def revision_of(connection: Connection) -> str:
    """Read the migration of the tables; empty where there are no tables."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def is_known(revision: str) -> bool:
    """Return whether this release knows that migration, so that it can use or migrate the tables."""
    return revision in {each.revision for each in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()}


def alembic_config(connection: Connection) -> Config:
    """Configure alembic in code, on a connection that the caller owns."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


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
    keyword_index: SqlKeywordIndex
    jobs: SqlJobs
    imports: SqlImports
    imported_images: SqlImportedImages
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

    `read_limit_s` is called in the reading thread and returns how long a read may take. Without it reads are not
    bounded.

    Raises:
        ConfigError: the URL of the image files names an unknown file system.
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
        keyword_index=SqlKeywordIndex(engine),
        jobs=SqlJobs(engine, keep_days=config.keep_jobs_days),
        imports=SqlImports(engine),
        imported_images=SqlImportedImages(engine),
        api_keys=SqlApiKeys(engine),
        image_files=SqlImageFiles(engine, blobs),
        blobs=blobs,
        reports=open_reports(config),
        engine=engine,
    )


def open_reports(config: CatalogConfig) -> FsspecBlobs:
    """Open the store of the jobs' reports, in a folder of its own beside the image files.

    Raises:
        ConfigError: the URL of the image files names an unknown file system.
    """
    return FsspecBlobs(f"{config.blobs_url.rstrip('/')}/reports")
