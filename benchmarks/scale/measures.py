"""What is measured at each size: searches, writes through the HTTP application, a repair pass, and the numbers."""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
from sqlalchemy import event

from benchmarks.images import small_jpegs
from benchmarks.scale.corpus import FILTERS
from benchmarks.scale.stage import MODEL, Stage
from core.ensemble import EnsembleSearch
from core.filters import parse_filter
from core.index_rows import GRACE_S
from core.indexing import Indexer, RepairReport
from core.search import ModelSearch
from deployments.config import GatewayArgs, ServedModels
from deployments.http.app import create_app
from deployments.replicas.handles import Scale
from deployments.services.assembly import assemble

LIMIT = 10
LONG_LIMIT = 100
_WARM_UP = 5
_LEAST_CALLS = 30
_SECONDS_A_FILTER = 20.0
_SERVED = 50
_WRITES = 50
_PRICE = 5_000
"""Beyond the prices of the corpus, so that what is written passes no filter."""
_REPEATS = 5
_PASSES = 30
_READ = "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_user_tables"
_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)

Figures = dict[str, Any]


def times(seconds: list[float]) -> Figures:
    """Sum up times as p50, p99 and the least, in milliseconds, with their number."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    return {
        "p50_ms": round(statistics.median(ordered) * 1e3, 2),
        "p99_ms": round(p99 * 1e3, 2),
        "least_ms": round(ordered[0] * 1e3, 2),
        "calls": len(ordered),
    }


def search_figures(stage: Stage) -> dict[str, Figures]:
    """Search the store with each filter, one caller: p50, p99 and recall@10 against the exact answers."""
    return {name: _search(stage, name) for name in FILTERS}


def _search(stage: Stage, name: str) -> Figures:
    filter = None if FILTERS[name] is None else parse_filter(FILTERS[name])
    exact = stage.corpus.nearest(name, LIMIT)
    for query in stage.corpus.queries[:_WARM_UP]:
        stage.store.search_products(stage.collection, query, LIMIT, filter)
    took, shares = [], []
    until = time.monotonic() + _SECONDS_A_FILTER
    for query, best in zip(stage.corpus.queries, exact, strict=True):
        started = time.perf_counter()
        hits = stage.store.search_products(stage.collection, query, LIMIT, filter)
        took.append(time.perf_counter() - started)
        shares.append(_share(len({hit.product_id for hit in hits}.intersection(best)), len(best)))
        if time.monotonic() > until and len(took) >= _LEAST_CALLS:
            break
    return times(took) | {"recall": round(statistics.mean(shares), 4)}


def _share(found: int, wanted: int) -> float:
    # Few products may pass no filter at all.
    return found / wanted if wanted else 1.0


def service_figures(stage: Stage) -> Figures:
    """Call the HTTP application in this process: searches with their pages, writes, and `/v1/stats`."""
    return asyncio.run(_served(stage))


async def _served(stage: Stage) -> Figures:
    transport = httpx.ASGITransport(_application(stage))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=120) as client:
        figures = {"search": {name: await _page(client, stage, name) for name in FILTERS}}
        # Before the writes, which Milvus indexes beside what follows.
        figures["stats"] = times([await _timed(client.get, "/v1/stats") for _ in range(_REPEATS)])
        return figures | await _writes(client)


def _application(stage: Stage) -> Any:
    args = GatewayArgs(
        catalog=stage.catalog_config, milvus=stage.milvus_config, counts_ttl_s=0, index_wait_s=60
    )
    members = {MODEL: ModelSearch(stage.encoder, stage.store)}
    app = create_app(args)
    app.state.services = assemble(
        args,
        ServedModels(models=(MODEL,)),
        stage.catalog,
        stage.store,
        lambda _: stage.encoder,
        EnsembleSearch(members, deadline_s=30),
        scale=_running,
    )
    return app


async def _running(_name: str) -> Scale:
    return Scale()


async def _page(client: httpx.AsyncClient, stage: Stage, name: str) -> Figures:
    """Search for pages of 10 and 100 products; the fill is that of the worst page."""
    figures: Figures = {}
    for limit in (LIMIT, LONG_LIMIT):
        wanted, took, fills = min(limit, stage.corpus.passing(name)), [], []
        for number in range(_SERVED if limit == LIMIT else _SERVED // 5):
            body = {"query": str(number), "model": MODEL, "limit": limit, "keyword_weight": 0}
            body |= {} if FILTERS[name] is None else {"filter": FILTERS[name]}
            started = time.perf_counter()
            answer = _sound(await client.post("/v1/search", json=body))
            took.append(time.perf_counter() - started)
            fills.append(_share(len(answer.json()["results"]), wanted))
        figures[f"limit_{limit}"] = times(took) | {"fill": round(min(fills), 3)}
    return figures


async def _writes(client: httpx.AsyncClient) -> Figures:
    """Put products with one image each, change their price by PUT and by PATCH, and delete them."""
    files = small_jpegs(_WRITES)
    put, price, patched, deleted = [], [], [], []
    for number, data in enumerate(files):
        url = f"/v1/products/written-{number}"
        form = {"data": {"metadata": json.dumps(_metadata(_PRICE))}, "files": {"images": ("image.jpg", data)}}
        put.append(await _timed(client.put, url, indexed=True, **form))
    for number in range(_WRITES):
        url = f"/v1/products/written-{number}"
        price.append(await _timed(client.put, url, indexed=True, json=_metadata(_PRICE + 1)))
        change = {"attributes": {"price": _PRICE + 2}}
        patched.append(await _timed(client.patch, url, indexed=True, json=change))
    for number in range(_WRITES):
        deleted.append(await _timed(client.delete, f"/v1/products/written-{number}"))
    return {
        "put": times(put),
        "put_price": times(price),
        "patch_price": times(patched),
        "delete": times(deleted),
    }


def _metadata(price: int) -> dict[str, Any]:
    return {"title": "A new product", "attributes": {"made": "by hand", "price": price}}


async def _timed(
    call: Callable[..., Awaitable[httpx.Response]], url: str, indexed: bool = False, **options: Any
) -> float:
    started = time.perf_counter()
    answer = _sound(await call(url, **options))
    took = time.perf_counter() - started
    if indexed and (state := answer.json()["index"][MODEL]["state"]) != "indexed":
        raise RuntimeError(f"{url} is {state}, not indexed")
    return took


def _sound(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise RuntimeError(f"{answer.request.url} answered {answer.status_code}: {answer.text[:500]}")
    return answer


def repair_figures(stage: Stage) -> Figures:
    """Make repair passes with nothing to do: their time, statements and rows that the database has read."""
    indexer = Indexer(stage.encoder, stage.store, stage.catalog.ledger, stage.catalog.blobs, stage.rows)

    async def make() -> RepairReport:
        return await indexer.index_missing() + await indexer.remove_obsolete()

    async def once() -> float:
        started = time.perf_counter()
        report = await make()
        if report != RepairReport():
            raise RuntimeError(f"the repair found something to do: {report}")
        return time.perf_counter() - started

    async def several() -> list[float]:
        # Nobody waited for the vectors of the products that were deleted at the size before.
        await make()
        return [await once() for _ in range(_PASSES)]

    figures = times(asyncio.run(several()))
    with _counted(stage) as counts:
        asyncio.run(once())
    return figures | counts | {"poll": _poll(stage)}


def _poll(stage: Stage) -> Figures:
    """Ask what the repair asks every few seconds: which collections have work at all."""

    def once() -> float:
        started = time.perf_counter()
        if stage.catalog.ledger.unsettled(GRACE_S):
            raise RuntimeError("the ledger has something to do")
        return time.perf_counter() - started

    figures = times([once() for _ in range(_PASSES)])
    with _counted(stage) as counts:
        once()
    return figures | counts


@contextmanager
def _counted(stage: Stage) -> Iterator[Figures]:
    """Count the statements of a block and, once it has ended, the rows that they read of tables and indexes."""
    counts: Figures = {"statements": 0, "rows_read": 0}

    def count(*_args: object) -> None:
        counts["statements"] += 1

    with psycopg.connect(stage.catalog_config.database_url, autocommit=True) as connection:
        before = _rows_read(stage, connection)
        event.listen(stage.catalog.engine, "before_cursor_execute", count)
        try:
            yield counts
        finally:
            event.remove(stage.catalog.engine, "before_cursor_execute", count)
        counts["rows_read"] = _rows_read(stage, connection) - before


def _rows_read(stage: Stage, connection: psycopg.Connection[Any]) -> int:
    # A backend reports its reads when it ends, or some time later.
    stage.catalog.engine.dispose()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        ((others,),) = connection.execute(_OTHERS).fetchall()
        if not others:
            break
        time.sleep(0.05)
    ((read,),) = connection.execute(_READ).fetchall()
    return int(read)
