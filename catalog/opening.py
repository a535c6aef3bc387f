"""Open the catalog that the configuration names, with its tables migrated to this version."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from catalog.api_keys import SqlApiKeys
from catalog.audit import SqlAudit
from catalog.blobs import FsspecBlobs
from catalog.captions import SqlCaptions
from catalog.database import CatalogConfig, open_engine, take_turns, writing
from catalog.image_files import SqlImageFiles
from catalog.imports import SqlImportedImages, SqlImports
from catalog.jobs import SqlJobs
from catalog.keyword_search import SqlKeywordIndex
from catalog.ledger import SqlLedger, SqlVersions
from catalog.ledger_queries import SqlIndexProgress, SqlQuarantine
from catalog.products import SqlProducts
from core.errors import ConfigError

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = (0x7669, 0x7472)
"""PostgreSQL's advisory lock for migrations: keys of two numbers never meet the locks of products."""


def migrate(engine: Engine) -> None:
    """Apply the missing migrations in one transaction; concurrent processes wait for each other.

    Raises:
        ConfigError: the tables are of a version that this one cannot migrate.
        Unavailable: the database does not answer.
    """
    with writing(engine) as connection:
        take_turns(connection, _MIGRATION_LOCK)
        revision = revision_of(connection)
        if reason := unknown_tables(revision):
            raise ConfigError(f"the database of database_url {reason}")
        if revision != latest_revision():
            command.upgrade(_alembic_config(connection), "head")


def revision_of(connection: Connection) -> str:
    """Read the migration of the tables; empty where there are no tables."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def latest_revision() -> str:
    """Name the migration that the tables of this version have."""
    return _revisions()[0]


def unknown_tables(revision: str) -> str | None:
    """Say why this version cannot use or migrate tables of that migration; None where it can."""
    if not revision or revision in _revisions():
        return None
    # Until the first release, migrations had numbers.
    if revision.isdecimal():
        return (
            f"has tables from before the first release (migration {revision}), which no release can migrate: "
            "name an empty database and an empty blobs_url, and import the products again"
        )
    return f"has tables of a newer version of Vitrine (migration {revision}): use that version"


@cache
def _revisions() -> Sequence[str]:
    """List the migrations, the latest first."""
    return [each.revision for each in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()]


def _alembic_config(connection: Connection) -> Config:
    """Configure alembic in code, on a connection that the caller owns."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


class Catalog:
    """The catalog's parts on one engine; safe to use from several threads."""

    def __init__(self, engine: Engine, config: CatalogConfig) -> None:
        self.engine = engine
        self.blobs = FsspecBlobs(config.blobs_url)
        self.reports = open_reports(config)
        self.products = SqlProducts(engine, self.blobs)
        self.ledger = SqlLedger(engine)
        self.quarantine = SqlQuarantine(engine)
        self.index_progress = SqlIndexProgress(engine)
        self.versions = SqlVersions(engine)
        self.audit = SqlAudit(engine)
        self.captions = SqlCaptions(engine)
        self.keyword_index = SqlKeywordIndex(engine)
        self.jobs = SqlJobs(engine, keep_days=config.keep_jobs_days)
        self.imports = SqlImports(engine)
        self.imported_images = SqlImportedImages(engine)
        self.api_keys = SqlApiKeys(engine)
        self.image_files = SqlImageFiles(engine, self.blobs)

    def close(self) -> None:
        """Close the database connections."""
        self.engine.dispose()


def open_catalog(config: CatalogConfig, read_limit_s: Callable[[], float] | None = None) -> Catalog:
    """Open the catalog, created or migrated to this version; several processes may do so at once.

    `read_limit_s` is called in the reading thread and returns how long a read may take. Without it reads are not
    bounded.

    Raises:
        ConfigError: the URL of the image files names an unknown file system, or the tables are of a version that
            this one cannot migrate.
        Unavailable: the database cannot be opened.
    """
    engine = open_engine(config, read_limit_s)
    try:
        catalog = Catalog(engine, config)
        migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return catalog


def open_reports(config: CatalogConfig) -> FsspecBlobs:
    """Open the store of the jobs' reports, in a folder of its own beside the image files.

    Raises:
        ConfigError: the URL of the image files names an unknown file system.
    """
    return FsspecBlobs(f"{config.blobs_url.rstrip('/')}/reports")
