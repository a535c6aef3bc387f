"""`python -m benchmarks.page`: how long a visitor waits for the first result, and what the page weighs.

The demo's service and catalog, and Debian's Chromium. Prints a table, and as its last line one JSON object.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.browsing import Wait, Weight, waits, weight
from core.tcp_ports import free_port
from demo.labels import image_queries
from demo.run import READY_TIMEOUT_S, SEED, fill
from demo.service import DemoService
from tests.support.browser import CHROMIUM, MISSING, chromium

_WARM_UP = 3
"""Drops that are not counted: the first of a service load what models and threads load late."""

Row = tuple[str, str, str, str]

console = Console(width=110)


def main() -> None:
    """Measure in a temporary folder."""
    options = _options()
    if CHROMIUM is None:
        raise SystemExit(MISSING)
    # The service is a child, which only an orderly end takes along.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit("ended by SIGTERM"))
    before = _load()
    with tempfile.TemporaryDirectory(prefix="vitrine-") as home:
        found, heavy = _measured(Path(home), options.products, options.drops)
    figures = _figures(found, heavy)
    title = f"page ({os.cpu_count()} cores, load before {before}, after {_load()})"
    table = Table("bar", "wanted", "measured", "how", title=title)
    for row in _rows(figures, heavy, options):
        table.add_row(*row)
    console.print(table)
    print(json.dumps(figures))


def _measured(home: Path, products: int, drops: int) -> tuple[list[Wait], Weight]:
    queries = image_queries(SEED, products, 2 * (drops + _WARM_UP))
    images = [query.image for query in queries if query.image is not None]
    with DemoService(home, free_port()) as service:
        service.wait_until_ready(READY_TIMEOUT_S)
        fill(service.base_url, products, None)
        with chromium() as browser:
            found = list(waits(browser, service.base_url, images))
            return found[_WARM_UP:], weight(browser, service.base_url)


def _figures(found: list[Wait], heavy: Weight) -> dict[str, float]:
    shown = [each.shown_ms for each in found]
    figures = {
        "first_result_ms": np.median(shown),
        "first_result_p95_ms": np.percentile(shown, 95),
        "listed_ms": np.median([each.listed_ms for each in found]),
        "api_search_ms": np.median([each.api_ms for each in found]),
        "first_result_over_api": np.median([each.shown_ms / each.api_ms for each in found]),
        "page_weight_kb": heavy.plain / 1024,
        "page_sent_kb": heavy.sent / 1024,
    }
    return {name: round(float(value), 2) for name, value in figures.items()}


def _rows(figures: dict[str, float], heavy: Weight, options: argparse.Namespace) -> list[Row]:
    waited = (
        f"p50 of {options.drops} drops on {options.products} products, from the drop until the image of the "
        f"first result shows; its line stands after {figures['listed_ms']:.0f} ms"
    )
    compared = f"the same search by a bare call of the API: {figures['api_search_ms']:.0f} ms"
    weighed = f"{heavy.files} files, images of products left out; compressed {figures['page_sent_kb']:.0f} KB"
    return [
        ("first_result_ms", "≤ 1000", f"{figures['first_result_ms']:.0f}", waited),
        ("first_result_p95_ms", "", f"{figures['first_result_p95_ms']:.0f}", "the same, p95"),
        ("first_result_over_api", "", f"{figures['first_result_over_api']:.2f}", compared),
        ("page_weight_kb", "≤ 150", f"{figures['page_weight_kb']:.0f}", weighed),
    ]


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=500, help="size of the catalog (default: 500)")
    parser.add_argument("--drops", type=int, default=30, help="images that are dropped (default: 30)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
