"""Configuration of the catalog's database."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from pydantic import ValidationError
from sqlalchemy import text

from catalog.database import CatalogConfig, open_engine, reading, writing
from catalog.opening import open_catalog
from core.errors import Unavailable


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("sqlite:///x.db", "sqlite+pysqlite"),
        ("postgresql://u:p@h/n", "postgresql+psycopg"),
        ("postgres://u:p@h/n", "postgresql+psycopg"),
        ("postgresql+psycopg://u:p@h/n", "postgresql+psycopg"),
    ],
)
def test_a_plain_url_gets_its_driver(given: str, driver: str) -> None:
    assert CatalogConfig(database_url=given, blobs_url="b").sqlalchemy_url.drivername == driver


@pytest.mark.parametrize(
    "bad",
    ["", "nonsense", "mysql://u:secret@h/n", "sqlite://", "sqlite:///:memory:", "sqlite:///x?mode=memory"],
)
def test_a_database_that_cannot_serve_is_refused_without_showing_the_url(bad: str) -> None:
    with pytest.raises(ValidationError, match="database_url") as refused:
        CatalogConfig(database_url=bad, blobs_url="b")
    assert "secret" not in str(refused.value)


def test_a_password_is_not_printed() -> None:
    config = CatalogConfig(database_url="postgresql://u:secret@h/n", blobs_url="b")
    assert "secret" not in repr(config)
    assert config.sqlalchemy_url.password == "secret"


def test_every_field_is_described() -> None:
    assert [name for name, each in CatalogConfig.model_fields.items() if not each.description] == []


def test_every_sqlite_connection_is_durable_and_checked(sqlite_url: str) -> None:
    engine = open_engine(CatalogConfig(database_url=sqlite_url, blobs_url="b"))
    with reading(engine) as one, reading(engine) as two:
        for connection in (one, two):
            pragmas = {
                name: connection.scalar(text(f"PRAGMA {name}"))
                for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
            }
            assert pragmas == {
                "journal_mode": "wal",
                "synchronous": 2,
                "busy_timeout": 30_000,
                "foreign_keys": 1,
            }
    engine.dispose()


def test_a_reader_does_not_wait_for_a_writer(sqlite_url: str) -> None:
    engine = open_engine(CatalogConfig(database_url=sqlite_url, blobs_url="b"))
    with writing(engine) as writer:
        writer.execute(text("CREATE TABLE t (n INTEGER)"))
        with reading(engine) as reader:
            assert reader.scalar(text("SELECT count(*) FROM sqlite_master")) == 0
    with reading(engine) as reader:
        assert reader.scalar(text("SELECT count(*) FROM sqlite_master")) == 1
    engine.dispose()


def test_writers_that_wait_for_each_other_leave_readers_a_connection(sqlite_url: str, tmp_path: Path) -> None:
    config = CatalogConfig(
        database_url=sqlite_url,
        blobs_url=f"{tmp_path}/blobs",
        pool_size=1,
        pool_overflow=2,
        pool_timeout_s=1,
    )
    catalog = open_catalog(config)
    begun = threading.Barrier(5)

    def write(number: int) -> None:
        begun.wait()
        catalog.products.put(f"p{number}", "", "", {}, [])

    with ThreadPoolExecutor(4) as pool:
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as other:
            other.execute("BEGIN IMMEDIATE")
            writes = [pool.submit(write, number) for number in range(4)]
            begun.wait()
            until = time.monotonic() + 1
            while time.monotonic() < until:
                assert catalog.products.counts() == (0, 0)
                time.sleep(0.01)
        for each in writes:
            each.result()
    assert catalog.products.counts() == (4, 0)
    catalog.close()


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for url in (
        f"sqlite:///{tmp_path}/file/catalog.db",
        f"postgresql://u:secret@/n?host={tmp_path}/nobody&connect_timeout=2",
    ):
        with pytest.raises(Unavailable) as away:
            open_catalog(CatalogConfig(database_url=url, blobs_url=f"{tmp_path}/blobs"))
        assert "secret" not in away.value.message


@pytest.mark.parametrize(("query", "seconds"), [("", 10), ("?connect_timeout=3", "3")])
def test_a_postgresql_server_that_vanishes_without_a_word_is_given_up(
    query: str, seconds: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def connect(**parameters: object) -> None:
        asked.update(parameters)
        raise psycopg.OperationalError("nobody answers")

    monkeypatch.setattr(psycopg, "connect", connect)
    engine = open_engine(CatalogConfig(database_url=f"postgresql://u:p@h/n{query}", blobs_url="b"))
    with pytest.raises(Unavailable), reading(engine):
        pass
    assert (asked["connect_timeout"], asked["tcp_user_timeout"]) == (seconds, 30_000)
