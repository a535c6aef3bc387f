"""Races of writes and the ledger that need writers side by side, as PostgreSQL has them."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import not_, or_, select, text

from catalog import products as written
from catalog.database import reading
from catalog.ledger import SqlLedger
from catalog.ledger_queries import IS_CURRENT
from catalog.opening import Catalog
from catalog.products import SqlProducts
from catalog.tables import EmbeddingRow
from core.errors import InvalidImage
from core.types import IndexItem
from tests.support.catalog_fixtures import RED, encoder
from tests.support.waiting import wait_until

CANDIDATE = encoder("candidate")
_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


def _settle(ledger: SqlLedger, item: IndexItem) -> None:
    ledger.open(CANDIDATE.collection, [item])
    ledger.settle({CANDIDATE.collection: [item]})


def _fail(ledger: SqlLedger, item: IndexItem) -> None:
    ledger.fail(CANDIDATE.collection, [(item, InvalidImage("no"))])


@pytest.mark.parametrize("finish", [_settle, _fail])
def test_what_a_build_finishes_while_a_write_replaces_it_stays_open(
    catalog: Catalog,
    products: SqlProducts,
    monkeypatch: pytest.MonkeyPatch,
    finish: Callable[[SqlLedger, IndexItem], None],
) -> None:
    ledger = SqlLedger(catalog.engine)
    products.put("p", "", "", {}, [RED])
    ledger.register(CANDIDATE)
    (item,) = ledger.missing(CANDIDATE.collection, 10)
    delete_products = written.delete_products
    builds: list[Future[None]] = []

    def is_done_or_waits() -> bool:
        with reading(catalog.engine) as connection:
            return builds[0].done() or connection.scalar(_WAITING) == 1

    def end_slowly(*arguments: Any) -> None:
        """End the write after a build has opened and finished the row that was not there yet."""
        builds.append(pool.submit(finish, ledger, item))
        wait_until(is_done_or_waits, within_s=60)
        delete_products(*arguments)

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(written, "delete_products", end_slowly)
        products.put("p", "", "", {"price": 1}, [RED])
        builds[0].result()
    closed = or_(EmbeddingRow.embedded_at.is_not(None), EmbeddingRow.error.is_not(None))
    with reading(catalog.engine) as connection:
        stale = select(EmbeddingRow.image_id).where(closed, not_(IS_CURRENT))
        assert connection.execute(stale).all() == []
