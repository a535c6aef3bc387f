"""`python -m benchmarks.search`: overhead of a search, throughput, and overload.

The service is one replica each of the gateway, the ensemble and a model that computes next to nothing, as
`vitrine serve` runs them, over a real Milvus server. Prints a table, and one JSON object as its last line.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.overload import Overload, overload
from benchmarks.search_overhead import Overhead, overhead
from benchmarks.search_service import empty_graph, fill, searching
from tests.support.vector_stores import INSTALL, is_installed, milvus_server

BY_VECTORS: dict[str, Any] = {"keyword_weight": 0}
"""Options of the searches that are compared with Milvus, which makes no ranking by keywords."""
CALLERS = 16

Row = tuple[str, str, str, str]

console = Console(width=110)


def main() -> None:
    """Measure everything once, in a temporary folder."""
    options = _options()
    if not is_installed():
        raise SystemExit(f"there is no Milvus server; make one with: {INSTALL}")
    # The service is a child process, which only an orderly exit ends.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit("ended by SIGTERM"))
    before = _load()
    with tempfile.TemporaryDirectory(prefix="vitrine-benchmark-") as name, milvus_server() as uri:
        fill(Path(name), uri, options.products)
        with searching(Path(name), uri) as (service, port):
            added = overhead(port, uri, options.pairs, **BY_VECTORS)
            hybrid = overhead(port, uri, options.pairs)
            much = overload(service, port, options.seconds, BY_VECTORS)
            after = overhead(port, uri, options.pairs, **BY_VECTORS)
        with empty_graph(Path(name) / "empty") as port:
            empty = overhead(port, uri, options.pairs)
    title = f"search ({os.cpu_count()} cores, load before {before}, after {_load()})"
    table = Table("bar", "wanted", "measured", "how", title=title)
    rows = [_added_row(added, hybrid, options.products), _after_row(after), _empty_row(empty)]
    for row in [*rows, *_overload_rows(much)]:
        table.add_row(*row)
    console.print(table)
    print(json.dumps(_figures(added, after, hybrid, empty, much)))


def _figures(
    added: Overhead, after: Overhead, hybrid: Overhead, empty: Overhead, much: Overload
) -> dict[str, float]:
    figures = {
        "overhead_p50_ms": added.added_ms,
        "overhead_after_overload_p50_ms": after.added_ms,
        "empty_graph_p50_ms": empty.served_ms,
        "hybrid_overhead_p50_ms": hybrid.added_ms,
        "requests_per_s": much.rates_per_s[CALLERS],
        "overload_p99_ratio": much.p99_ratio,
        "rejected_p99_ms": much.rejected_p99_ms,
        "memory_ratio": much.memory_ratio,
        "other_errors": much.other_errors,
    }
    return {name: round(value, 3) for name, value in figures.items()}


def _added_row(added: Overhead, hybrid: Overhead, products: int) -> Row:
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in added.stages_ms.items())
    how = (
        f"p50 of one caller, {products:,} products: bare {added.bare_ms:.1f} ms, served {added.served_ms:.1f} ms "
        f"({stages}); with keyword search + {hybrid.added_ms:.1f} ms"
    )
    return "overhead_p50_ms", "≤ 10", f"{added.added_ms:.1f}", how


def _after_row(after: Overhead) -> Row:
    how = f"the same after the overload: bare {after.bare_ms:.1f} ms, served {after.served_ms:.1f} ms"
    return "overhead_after_overload_p50_ms", "", f"{after.added_ms:.1f}", how


def _empty_row(empty: Overhead) -> Row:
    how = f"a call of a graph of three deployments that do nothing, bare {empty.bare_ms:.1f} ms in turns with it"
    return "empty_graph_p50_ms", "", f"{empty.served_ms:.1f}", how


def _overload_rows(much: Overload) -> list[Row]:
    rates = ", ".join(f"{count} callers {rate:.0f}" for count, rate in much.rates_per_s.items())
    ratio = (
        f"p50 {much.accepted_p50_ms:.0f}, p99 {much.accepted_p99_ms:.0f} ms of {much.accepted_per_s:.0f} "
        f"accepted/s; one caller alone {much.unloaded_p50_ms:.0f}, {much.unloaded_p99_ms:.0f} ms; "
        f"offered {much.offered_per_s:.0f}/s"
    )
    memory = f"PSS of all processes: {much.memory_mib[0]:.0f} MiB before, {much.memory_mib[1]:.0f} MiB after"
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(much.statuses.items()))
    return [
        ("requests_per_s", "", f"{much.rates_per_s[CALLERS]:.0f}", f"a replica of the gateway; {rates}"),
        ("overload_p99_ratio", "≤ 4", f"{much.p99_ratio:.2f}", ratio),
        ("rejected_p99_ms", "≤ 100", f"{much.rejected_p99_ms:.0f}", "503, sent to answered"),
        ("memory_ratio", "≤ 1.1", f"{much.memory_ratio:.3f}", memory),
        ("other_errors", "0", f"{much.other_errors}", f"neither results nor a proper 503; {statuses}"),
    ]


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=20_000, help="size of the catalog")
    parser.add_argument("--pairs", type=int, default=500, help="pairs of a bare and a served call")
    parser.add_argument("--seconds", type=float, default=30, help="how long the overload lasts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
