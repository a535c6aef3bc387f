"""Open the catalog that the configuration names."""

from dataclasses import dataclass

from sqlalchemy import Engine

from catalog.blobs import FsspecBlobs
from catalog.config import CatalogConfig
from catalog.engine import open_engine
from catalog.ledger import SqlLedger
from catalog.migrate import migrate
from catalog.products import SqlProducts


@dataclass(frozen=True, slots=True)
class Catalog:
    """The catalog's parts on one engine; safe to use from several threads."""

    products: SqlProducts
    ledger: SqlLedger
    blobs: FsspecBlobs
    engine: Engine

    def close(self) -> None:
        """Close the database connections."""
        self.engine.dispose()


def open_catalog(config: CatalogConfig) -> Catalog:
    """Open the catalog, created or migrated to this version; several processes may do so at once.

    Raises:
        ConfigError: the URL of the picture files names an unknown file system.
        Unavailable: the database cannot be opened.
    """
    blobs = FsspecBlobs(config.blobs_url)
    engine = open_engine(config)
    try:
        migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return Catalog(SqlProducts(engine, blobs), SqlLedger(engine), blobs, engine)
