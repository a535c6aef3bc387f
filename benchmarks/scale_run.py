"""`python -m benchmarks.scale_run`: searches, writes and the repair over 10,000 to 1,000,000 products.

A real PostgreSQL and a real Milvus server grow from size to size with the same products, whose vectors are made, not
encoded. Prints a table for each size, and one JSON object as its last line.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.scale.corpus import BATCH, FILTERS, Corpus
from benchmarks.scale.measures import Figures, repair_figures, search_figures, service_figures
from benchmarks.scale.stage import Stage, stage
from tests.support.catalog_fixtures import postgresql
from tests.support.vector_stores import INSTALL, is_installed, milvus_server

_QUERIES = 200
console = Console(width=120)


def main() -> None:
    """Grow through the sizes and measure at each."""
    options = _options()
    if not is_installed():
        raise SystemExit(f"there is no Milvus server; make one with: {INSTALL}")
    # Both servers are child processes, which only an orderly exit ends.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit("ended by SIGTERM"))
    corpus = Corpus(options.dimension, _QUERIES, options.written)
    figures: dict[int, Figures] = {}
    with (
        tempfile.TemporaryDirectory(prefix="vitrine-scale-") as folder,
        postgresql() as postgres_url,
        milvus_server() as uri,
        stage(corpus, postgres_url, uri, folder, options.declared) as there,
    ):
        for size in options.rows:
            figures[size] = _measured(there, size)
            console.print(_table(size, figures[size]))
            # In case a later size fails.
            print(json.dumps({"rows": size, **figures[size]}), flush=True)
        servers = there.versions()
    bars = ratios(figures)
    console.print(_bars(bars))
    print(json.dumps({"conditions": _conditions(options) | servers, "sizes": figures, "ratios": bars}))


def _measured(there: Stage, size: int) -> Figures:
    load = os.getloadavg()[0]
    added = size - there.corpus.size
    fill_s = there.fill(size)
    settle_s = there.settle()
    started = time.perf_counter()
    figures = {
        "fill_s": round(fill_s, 1),
        "fill_per_s": round(added / fill_s, 1),
        "settle_s": round(settle_s, 1),
        "search": search_figures(there),
        "repair": repair_figures(there),
        "service": service_figures(there),
    }
    measured_s = time.perf_counter() - started
    return figures | {
        "measured_s": round(measured_s, 1),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
    }


def ratios(figures: Mapping[int, Figures]) -> dict[str, float]:
    """Compare the largest size with the smallest, and filters with plain searches at the largest."""
    small, large = figures[min(figures)], figures[max(figures)]
    plain = large["search"]["plain"]["p50_ms"]
    return {
        "search_p50": round(plain / small["search"]["plain"]["p50_ms"], 2),
        "repair_p50": round(large["repair"]["p50_ms"] / small["repair"]["p50_ms"], 2),
        "filtered_over_plain": {
            name: round(large["search"][name]["p50_ms"] / plain, 2) for name in FILTERS if name != "plain"
        },
        "least_recall": min(each["recall"] for each in large["search"].values()),
    }


def _table(size: int, figures: Figures) -> Table:
    seconds = f"filled in {figures['fill_s']:,.0f} s ({figures['fill_per_s']:,.0f}/s), settled in "
    table = Table(
        "what", "p50 ms", "p99 ms", "", title=f"{size:,} products, {seconds}{figures['settle_s']:,.0f} s"
    )
    for name, each in figures["search"].items():
        _row(table, f"store, {name}", each, f"recall {each['recall']}")
    for name, pages in figures["service"]["search"].items():
        for limit, each in pages.items():
            _row(table, f"service, {name}, {limit.replace('_', ' ')}", each, f"fill {each['fill']}")
    for name in ("put", "put_price", "patch_price", "delete", "stats"):
        _row(table, name, figures["service"][name], "")
    repair = figures["repair"]
    _row(table, "repair", repair, f"{repair['statements']} statements, {repair['rows_read']:,} rows read")
    poll = repair["poll"]
    _row(table, "repair's poll", poll, f"{poll['statements']} statements, {poll['rows_read']:,} rows read")
    return table


def _row(table: Table, what: str, figures: Figures, note: str) -> None:
    table.add_row(what, f"{figures['p50_ms']:,.1f}", f"{figures['p99_ms']:,.1f}", note)


def _bars(bars: Mapping[str, Any]) -> Table:
    table = Table("bar", "wanted", "measured", title="the largest size over the smallest; filters over plain")
    table.add_row("repair_p50", "≤ 1.5", str(bars["repair_p50"]))
    table.add_row("search_p50", "≤ 2.5", str(bars["search_p50"]))
    for name, ratio in bars["filtered_over_plain"].items():
        table.add_row(f"filtered_over_plain, {name}", "≤ 3", str(ratio))
    table.add_row("least_recall", "≥ 0.99", str(bars["least_recall"]))
    return table


def _conditions(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "dimension": options.dimension,
        "declared": options.declared,
        **{name: version(name) for name in ("pymilvus", "sqlalchemy", "psycopg")},
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    sizes = [10_000, 100_000, 1_000_000]
    parser.add_argument(
        "--rows", type=_sizes, default=sizes, help="sizes, by commas; default: 10 k, 100 k, 1 M"
    )
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument(
        "--written",
        type=int,
        default=100_000,
        help="products that go through the catalog's write; the others are copied from them within the database",
    )
    parser.add_argument(
        "--undeclared",
        dest="declared",
        action="store_false",
        help="leave the attributes in JSON, without `milvus.indexed_attributes`",
    )
    options = parser.parse_args()
    for size in options.rows:
        if size % BATCH or (size > options.written and size % options.written):
            parser.error(f"{size} rows: expected a multiple of {BATCH}, and of --written where that is less")
    return options


def _sizes(text: str) -> list[int]:
    return sorted({int(each) for each in text.split(",")})


if __name__ == "__main__":
    main()
