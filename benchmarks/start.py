"""`python -m benchmarks.start`: from a fresh clone to the first answer by `make demo`, and a second start.

The last commit is cloned into a temporary folder. Packages come from the registry, not from a cache. Prints
a table, and as its last line one JSON object.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from core.tcp_ports import free_port

_ROOT = Path(__file__).parents[1]
_ANSWERS = "Vitrine answers at"
_STOP_S = 120.0
_NO_CACHE = {"PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1"}


def main() -> None:
    """Measure both starts."""
    options = _options()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="vitrine-") as folder:
        clone = Path(folder) / "clone"
        began = time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", str(_ROOT), str(clone)], check=True)
        first_s, stages = _first_answer(clone, began, options.limit_s)
        second_s, _ = _first_answer(clone, time.perf_counter(), options.limit_s)
    title = f"make demo ({os.cpu_count()} cores, load {before:.1f} before, {os.getloadavg()[0]:.1f} after)"
    table = Table("bar", "wanted", "measured", "of which", title=title)
    table.add_row("fresh_clone_s", "≤ 480", f"{first_s:.0f}", "; ".join(stages))
    table.add_row("second_start_s", "≤ 60", f"{second_s:.0f}", "")
    Console(width=110).print(table)
    print(json.dumps({"fresh_clone_s": round(first_s, 1), "second_start_s": round(second_s, 1)}))


def _first_answer(clone: Path, began: float, limit_s: float) -> tuple[float, list[str]]:
    """Run `make demo` until a search is answered; returns the seconds since `began`, and those of its stages.

    Raises:
        RuntimeError: it ended, or took longer than the limit.
    """
    log, port = clone / "demo.log", free_port()
    with log.open("w") as output:
        demo = subprocess.Popen(
            ["make", "demo", f"DEMO_OPTIONS=--port {port}"],
            cwd=clone,
            env={**os.environ, **_NO_CACHE},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while _ANSWERS not in log.read_text():
            if demo.poll() is not None or time.perf_counter() - began > limit_s:
                raise RuntimeError(f"no answer: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        found = httpx.post(f"http://127.0.0.1:{port}/v1/search", json={"query": "a red dress"}, timeout=60)
        if not found.raise_for_status().json()["results"]:
            raise RuntimeError("the search has found nothing")
        took_s = time.perf_counter() - began
    finally:
        _end(demo)
    return took_s, re.findall(r"^ +(\d+\.\d s  .*?)$", log.read_text(), re.MULTILINE)


def _end(demo: "subprocess.Popen[bytes]") -> None:
    """As Ctrl-C at a terminal: to all of the group, of which the demo ends its own service in order."""
    with suppress(ProcessLookupError):
        os.killpg(demo.pid, signal.SIGINT)
    try:
        demo.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(demo.pid, signal.SIGKILL)
        raise


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit-s", type=float, default=1800.0, help="longest wait for a start, in seconds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
