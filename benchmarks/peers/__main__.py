"""`python -m benchmarks.peers`: Vitrine beside Infinity and LitServe, in turns, on the same weights and images.

Prints a table for each tower, and as its last line one JSON object. `--memory` also prints the memory of each
process.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.bare import BareModel
from benchmarks.peers.images import shop_images
from benchmarks.peers.measure import Meter, Mode, Target, Window, memory_mib, window
from benchmarks.peers.servers import PEERS, VITRINE, NotInstalled, environments_folder, install, served
from benchmarks.peers.summary import Run, figures, ratios
from benchmarks.peers.towers import TOWERS, bare_vectors, model_config, write_tower

MODES = {mode.name: mode for mode in (Mode(1, 1), Mode(16, 1), Mode(32, 1), Mode(4, 16))}
_BARE_S = 2.0

console = Console(width=130)


class Comparison:
    """Measures the servers on one tower, in turns."""

    def __init__(self, scratch: Path, tower: str, options: argparse.Namespace) -> None:
        """Write the tower, and measure the bare model to learn its best batches and threads."""
        self._options = options
        self._images = shop_images()
        self._tower = write_tower(scratch / tower, model_config(tower))
        self._expected = np.array(bare_vectors(self._tower, self._images), np.float32)
        self._bare = BareModel(self._tower, "fp32")
        self._batches = self._bare.best_batches(seconds=0.4)
        self._threads = max(
            self._batches, key=lambda each: self._bare.images_per_s(self._batches[each], each, seconds=2)
        )
        self._last_bare = self._bare_images_per_s()

    def run(self, name: str, programs: Path | None) -> Run:
        """Start a server, measure all modes and its memory, and end it; bare loops run before and after."""
        before = self._last_bare
        running = served(name, programs, self._tower, self._threads, self._images[0])
        with running as target, _client() as client:
            _log(f"{name} has started")
            windows = {mode.name: self._window(client, target, mode) for mode in self._options.modes}
            processes = memory_mib(target.pid)
        self._last_bare = self._bare_images_per_s()
        run = Run(name, windows, processes, (before + self._last_bare) / 2)
        _log(f"{name}: {run.pss_gib:.2f} GiB, bare {before:.1f} and {self._last_bare:.1f} images/s")
        return run

    def _window(self, client: ProcessPoolExecutor, target: Target, mode: Mode) -> Window:
        """Measure, once more where other work disturbs, and return the least disturbed window."""
        found: list[Window] = []
        for _ in range(self._options.tries):
            call = client.submit(window, target, mode, self._images, self._expected, self._options.seconds)
            found.append(call.result())
            _log(
                f"  {mode.name}: {found[-1].images_per_s:.1f} images/s, {found[-1].cpu_ms:.1f} ms of processor "
                f"time an image, {found[-1].others:.2f} cores of other work"
            )
            if found[-1].others <= self._options.others:
                break
        return min(found, key=lambda each: each.others)

    def _bare_images_per_s(self) -> float:
        found: list[tuple[float, float]] = []
        for _ in range(self._options.tries):
            with Meter() as meter:
                fastest = self._bare.fastest(self._batches, _BARE_S)
            found.append((meter.others, fastest))
            if meter.others <= self._options.others:
                break
        return min(found)[1]


def _log(line: str) -> None:
    print(time.strftime("%X"), line, file=sys.stderr, flush=True)


@contextmanager
def _client() -> Iterator[ProcessPoolExecutor]:
    """Run the client in a process of its own, whose processor time counts for no server."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


def main() -> None:
    """Measure what was asked for, everything by default."""
    options = _options()
    # The servers are child processes, which only an orderly exit ends.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit("ended by SIGTERM"))
    with tempfile.TemporaryDirectory(prefix="vitrine-peers-") as scratch:
        programs = _programs(options)
        result = {}
        for tower in options.towers:
            comparison = Comparison(Path(scratch), tower, options)
            runs = []
            for turn in range(options.turns):
                # The other way round in every second turn.
                order = list(programs) if turn % 2 == 0 else list(reversed(programs))
                runs += [comparison.run(name, programs[name]) for name in order]
            if options.memory:
                # The last turn, in which all have run.
                for run in runs[-len(programs) :]:
                    _print_memory(run)
            result[tower] = figures(runs)
            _print_tower(tower, result[tower])
    print(json.dumps({"figures": result, "ratios": ratios(result)}))


def _programs(options: argparse.Namespace) -> dict[str, Path | None]:
    """Return the servers to compare; a peer that cannot be installed is named and left out."""
    found: dict[str, Path | None] = {VITRINE: None}
    for name in PEERS:
        if name in options.peers:
            try:
                found[name] = install(name, options.environments)
            except NotInstalled as error:
                print(error, file=sys.stderr)
    return found


def _print_tower(tower: str, found: dict[str, dict[str, dict[str, float]]]) -> None:
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    table = Table(
        *("server", "callers x images", "images/s", "/ bare", "cpu ms an image", "p50 ms", "least cosine"),
        *("PSS GiB", "others, cores"),
        title=f"{tower} ({os.cpu_count()} cores, load {load})",
    )
    for server, modes in found.items():
        for mode, each in modes.items():
            table.add_row(
                *(server, mode, f"{each['images_per_s']:.1f}", f"{each['served_over_bare']:.2f}"),
                *(f"{each['cpu_ms']:.1f}", f"{each['p50_ms']:.1f}", f"{each['cosine']:.5f}"),
                *(f"{each['pss_gib']:.2f}", f"{each['others']:.2f}"),
            )
    console.print(table)


def _print_memory(run: Run) -> None:
    table = Table("process", "PSS MiB", title=f"{run.server}: {run.pss_gib:.2f} GiB")
    for title, used in sorted(run.processes, key=lambda each: -each[1]):
        table.add_row(title[:100], f"{used:.0f}")
    console.print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=2, help="turns of each server (default: 2)")
    parser.add_argument("--seconds", type=float, default=8, help="length of a window (default: 8)")
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=list(TOWERS))
    parser.add_argument(
        "--modes",
        nargs="+",
        type=MODES.__getitem__,
        default=list(MODES.values()),
        help=f"callers x images a request, of {', '.join(MODES)} (default: all)",
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--tries", type=int, default=3, help="most tries of a disturbed window (default: 3)")
    parser.add_argument(
        "--others", type=float, default=0.1, help="cores of other work that disturb a window (default: 0.1)"
    )
    parser.add_argument(
        "--environments", type=Path, default=environments_folder(), help="folder of the peers' environments"
    )
    parser.add_argument("--memory", action="store_true", help="also print the memory of each process")
    return parser.parse_args()


if __name__ == "__main__":
    main()
