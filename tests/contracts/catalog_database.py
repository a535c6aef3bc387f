"""What every database must bear: many processes that start, migrate and write at once, and kill -9."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, text

from catalog.database import CatalogConfig, open_engine, reading, utc_now, writing
from catalog.opening import Catalog, _alembic_config, migrate, open_catalog
from catalog.tables import Base, EmbeddingRow, ImageRow, ModelVersionRow, ProductRow
from core.errors import ConfigError, DeadlineExceeded
from core.types import LedgerCounts
from tests.support.catalog_fixtures import RED, encoder
from tests.support.children import Child

_WRITER = Path(__file__).parent / "catalog_writer.py"
_OF_VERSION = "name", "family", "checkpoint", "fingerprint", "dimension", "modalities", "precision", "device"


class DatabaseContract:
    """Run on what the fixture `database_url` names."""

    def test_the_migrations_make_exactly_the_tables_of_the_code(self, catalog: Catalog) -> None:
        with catalog.engine.connect() as connection:
            # SQLAlchemy cannot declare the full-text indexes.
            opts = {
                "compare_type": True,
                "include_name": lambda name, *_: name is None or not name.startswith("fulltext"),
            }
            context = MigrationContext.configure(connection, opts=opts)
            assert compare_metadata(context, Base.metadata) == []

    @pytest.mark.parametrize(
        ("revision", "says"),
        [
            ("0010", "before the first release.*import the products again"),
            ("v9", "a newer version.*use that"),
        ],
    )
    def test_tables_of_another_version_are_left_as_they_are(
        self, catalog: Catalog, catalog_config: CatalogConfig, revision: str, says: str
    ) -> None:
        catalog.products.put("p", "", "", {}, [])
        with writing(catalog.engine) as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
        with pytest.raises(ConfigError, match=says):
            open_catalog(catalog_config)
        assert catalog.products.counts() == (1, 0)

    def test_a_migration_that_fails_leaves_nothing_behind(
        self, catalog_config: CatalogConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_args: object) -> None:
            raise RuntimeError("no more power")

        engine = open_engine(catalog_config)
        with monkeypatch.context() as patch:
            patch.setattr("alembic.operations.Operations.bulk_insert", fail)
            with pytest.raises(RuntimeError, match="no more power"):
                migrate(engine)
        assert inspect(engine).get_table_names() == []
        migrate(engine)
        assert "products" in inspect(engine).get_table_names()
        engine.dispose()

    def test_the_ledger_of_the_first_release_keeps_its_progress(self, catalog_config: CatalogConfig) -> None:
        engine = open_engine(catalog_config)
        now, info = utc_now(), encoder()
        states = [
            ("a" * 32, 5, now, None, "settled"),
            ("a" * 32, 4, now, None, "open"),
            ("b" * 32, 3, None, "InvalidImage: no", "open"),
            ("c" * 32, 6, None, "InvalidImage: no", "failed"),
            ("e" * 32, 1, None, None, "open"),
        ]
        images = {"a" * 32: 5, "c" * 32: 6, "d" * 32: 7}
        with writing(engine) as connection:
            command.upgrade(_alembic_config(connection), "v1")
            written = {"created_at": now, "updated_at": now, "revision": 9}
            product = {"id": "p", "title": "", "description": "", "attributes": {}}
            connection.execute(insert(ProductRow).values(**product, **written))
            file = {
                "product_id": "p",
                "sha256": "0" * 64,
                "media_type": "",
                "width": 1,
                "height": 1,
                "bytes": 1,
            }
            for position, (image_id, revision) in enumerate(images.items()):
                row = {"id": image_id, "revision": revision, "position": position, **file}
                connection.execute(insert(ImageRow).values(**row))
            for image_id, revision, embedded_at, error, _ in states:
                row = {"image_id": image_id, "image_revision": revision, "collection": info.collection}
                row |= {"begun_at": now, "embedded_at": embedded_at, "error": error}
                connection.execute(insert(EmbeddingRow).values(**row))
            version = {name: each for name, each in asdict(info).items() if name in _OF_VERSION}
            row = {"collection": info.collection, "created_at": now, **version}
            connection.execute(insert(ModelVersionRow).values(**row))
        migrate(engine)
        engine.dispose()
        catalog = open_catalog(catalog_config)
        assert catalog.ledger.versions() == [info]
        rows = dict(catalog.audit.rows(info.collection))
        assert rows == {f"{each[0]}:{each[1]}": each[4] for each in states}
        assert catalog.ledger.counts(info.collection) == LedgerCounts(3, indexed=1, failed=1, missing=1)
        assert catalog.ledger.unsettled() == {info.collection}, "an image without a row"
        (missing,) = catalog.ledger.missing(info.collection, 10)
        assert missing.image_id == "d" * 32
        assert len(catalog.ledger.obsolete(info.collection, 10)) == 3
        catalog.close()

    def test_a_write_that_raises_is_undone(self, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
        before, _ = catalog.products.put("p", "t", "", {}, [])

        def fail(*_args: object) -> None:
            raise RuntimeError("no more power")

        with monkeypatch.context() as patch:
            patch.setattr("catalog.product_rows._image_values", fail)
            with pytest.raises(RuntimeError, match="no more power"):
                catalog.products.put("p", "other", "", {}, [RED])
        assert catalog.products.get("p") == before

    def test_a_read_is_stopped_when_its_time_is_over(self, catalog_config: CatalogConfig) -> None:
        numbers = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number {}) "
        endless = text(numbers.format("") + "SELECT count(*) FROM number")
        many = text(numbers.format("WHERE n < 100000") + "SELECT count(*) FROM number")
        limits_s = [0.2, 0.0, 600.0]
        one_connection = catalog_config.model_copy(update={"pool_size": 1, "pool_overflow": 0})
        engine = open_engine(one_connection, lambda: limits_s.pop(0))
        for _ in range(2):
            with pytest.raises(DeadlineExceeded), reading(engine) as connection:
                connection.execute(endless)
        with pytest.raises(DeadlineExceeded), reading(engine, timeout_s=0.2) as connection:
            connection.execute(endless)
        # The limit goes with the read: the same connection then takes its time.
        with writing(engine) as connection:
            assert connection.scalar(many) == 100_000
        engine.dispose()

    @pytest.mark.slow
    def test_processes_that_start_and_write_at_once_never_fail(self, catalog_config: CatalogConfig) -> None:
        with ThreadPoolExecutor(3) as pool:
            writers = list(pool.map(lambda n: _run_writer(catalog_config, f"w{n}", 20), range(3)))
        assert [(each.returncode, each.stderr) for each in writers] == [(0, "")] * 3
        catalog = open_catalog(catalog_config)
        assert catalog.products.counts() == (61, 61)
        acknowledged = {line for each in writers for line in each.stdout.split()}
        assert set(catalog.products.get_many(sorted(acknowledged))) == acknowledged
        assert len(acknowledged) == 60
        catalog.close()

    @pytest.mark.slow
    def test_a_killed_writer_loses_nothing_that_it_acknowledged(self, catalog_config: CatalogConfig) -> None:
        acknowledged = set()
        for round_ in range(2):
            acknowledged |= _write_and_kill(catalog_config, f"r{round_}", after=8 + round_)
        catalog = open_catalog(catalog_config)
        assert set(catalog.products.get_many(sorted(acknowledged))) == acknowledged
        assert len(acknowledged) >= 15
        for product in catalog.products.page(10_000):
            for image in product.images:
                assert _sha256(catalog.blobs.get(image.sha256)) == image.sha256
        for file in Path(catalog_config.blobs_url).rglob("*"):
            if file.is_file() and file.suffix != ".tmp":
                assert _sha256(file.read_bytes()) == file.name
        catalog.close()


def _run_writer(config: CatalogConfig, name: str, count: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_writer(config, name, count, 100), capture_output=True, text=True, timeout=120)


def _write_and_kill(config: CatalogConfig, name: str, after: int) -> set[str]:
    with Child("writer", _writer(config, name, 10_000, 3_000_000), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        acknowledged = {process.stdout.readline().strip() for _ in range(after)}
        process.kill()
        # What it had printed before the kill counts as well; a line that was cut reached nobody.
        acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
    assert "" not in acknowledged, "the writer ended by itself"
    return acknowledged


def _writer(config: CatalogConfig, name: str, count: int, size: int) -> list[str]:
    arguments = [config.database_url, config.blobs_url, name, str(count), str(size)]
    return [sys.executable, str(_WRITER), *arguments]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
