"""Where the catalog lives."""

from pydantic import Field, field_validator
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from core.config import Config
from core.errors import ConfigError

MAX_IMAGES_PER_PRODUCT = 50
"""Most pictures a product may have, unless the configuration says otherwise."""
KEEP_JOBS_DAYS = 90.0
"""How long the record of a job is kept, unless the configuration says otherwise."""
_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


class CatalogConfig(Config):
    """The database of the catalog and the store of its picture files."""

    database_url: str = Field(
        description="SQLAlchemy URL: `sqlite:///path` or `postgresql://user:password@host/name`.",
        repr=False,
    )
    blobs_url: str = Field(
        description="Where picture files lie, as fsspec names it: a folder, `file:///…`, "
        "`s3://bucket/prefix`, `gs://…`, `abfs://…` or, for tests, `memory://…`.",
        min_length=1,
    )
    pool_size: int = Field(default=5, ge=1, description="Database connections that a process keeps open.")
    pool_overflow: int = Field(
        default=10, ge=0, description="Further connections that a process opens under load and closes again."
    )
    pool_timeout_s: float = Field(
        default=30.0, gt=0, description="How long a call waits for a free connection, in seconds."
    )
    pool_recycle_s: int = Field(
        default=1800,
        gt=0,
        description="Age in seconds after which a connection is replaced, below the idle limit of firewalls.",
    )
    read_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="How long one read of the database may take in the gateway, in seconds; it is stopped "
        "sooner when the time of its request is over. Jobs and the repair read without a limit.",
    )
    keep_jobs_days: float = Field(
        default=KEEP_JOBS_DAYS,
        ge=1,
        description="Days after which the record of a job that has ended goes, once another job begins.",
    )

    @field_validator("database_url")
    @classmethod
    def _database_is_known(cls, value: str) -> str:
        _sqlalchemy_url(value)
        return value

    @property
    def sqlalchemy_url(self) -> URL:
        """The database URL with its driver: psycopg 3 for PostgreSQL."""
        return _sqlalchemy_url(self.database_url)


def _sqlalchemy_url(value: str) -> URL:
    # The messages never repeat the URL: it may hold a password.
    try:
        url = make_url(value)
    except ArgumentError:
        raise ConfigError(
            "database_url is no URL; use sqlite:///path or postgresql://user:password@host/name"
        ) from None
    if url.drivername not in _DRIVERS:
        raise ConfigError(f"database_url names {url.drivername!r}; the catalog needs sqlite or postgresql")
    if url.get_backend_name() == "sqlite" and (url.database in (None, "", ":memory:") or "mode" in url.query):
        raise ConfigError("database_url needs the path of a file: every process and thread opens it again")
    return url.set(drivername=_DRIVERS[url.drivername])
