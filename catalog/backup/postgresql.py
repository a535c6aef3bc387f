"""PostgreSQL, by its own pg_dump and pg_restore."""

import os
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.engine import URL

from catalog.backup.listing import Contents, list_contents
from catalog.config import CatalogConfig
from catalog.engine import open_engine
from catalog.migrate import drop_tables
from catalog.transactions import reading
from core.errors import ConfigError, Unavailable


def dump(config: CatalogConfig, target: Path) -> Contents:
    """Write a dump in pg_dump's custom format to `target`, with the lists of its files beside it.

    Dump and lists see one state of the database, whatever is written meanwhile.

    Raises:
        ConfigError: there is no pg_dump, or it is older than the server.
        Unavailable: the server does not answer.
    """
    engine = open_engine(config)
    try:
        with reading(engine) as connection:
            shared = connection.scalar(select(func.pg_export_snapshot()))
            contents = list_contents(connection, target.parent)
            _run(config, "pg_dump", "--format=custom", f"--snapshot={shared}", f"--file={target}")
            return contents
    finally:
        engine.dispose()


def restore(config: CatalogConfig, source: Path) -> None:
    """Put a dump in the place of an empty catalog, whoever has it open.

    Raises:
        ConfigError: there is no pg_restore, or it refuses.
        Unavailable: the server does not answer.
    """
    engine = open_engine(config)
    try:
        # They may be those of a later migration, of which the dump knows nothing.
        drop_tables(engine)
    finally:
        engine.dispose()
    _run(config, "pg_restore", "--clean", "--if-exists", "--single-transaction", str(source))


def _run(config: CatalogConfig, program: str, *arguments: str) -> None:
    path = shutil.which(program)
    if path is None:
        raise ConfigError(f"{program} is needed and not on the PATH: install PostgreSQL's client programs")
    url = config.sqlalchemy_url
    command = [
        path,
        "--no-owner",
        "--no-privileges",
        f"--dbname={_address(url)}",
        "--no-password",
        *arguments,
    ]
    # Not among the arguments, which every process of the machine can read.
    secret = {"PGPASSWORD": str(url.password)} if url.password else {}
    done = subprocess.run(
        command,
        env={**os.environ, **secret},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()
        kind = Unavailable if "connection to server" in done.stderr else ConfigError
        raise kind(f"{program} failed: {reason[-1] if reason else done.returncode}")


def _address(url: URL) -> str:
    return url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
