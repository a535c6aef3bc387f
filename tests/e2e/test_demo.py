"""`make demo` from nothing, its end by Ctrl-C, and a second start from what is indexed."""

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from cli.environment import free_port

PRODUCTS = 8
START_TIMEOUT_S = 300


def test_the_demo_starts_ends_and_starts_again_from_what_is_indexed() -> None:
    with tempfile.TemporaryDirectory(prefix="vitrine-") as home:
        first = _run_and_interrupt(Path(home))
        assert f"{PRODUCTS} products indexed (0 were there)" in first
        second = _run_and_interrupt(Path(home))
        assert f"{PRODUCTS} products indexed ({PRODUCTS} were there)" in second
        for output in (first, second):
            assert len(re.findall(r"^ +\d+\.\d s ", output, re.MULTILINE)) == 2


def _run_and_interrupt(home: Path) -> str:
    options = ["--home", str(home), "--port", str(free_port()), "--products", str(PRODUCTS)]
    with (home / "output").open("w+") as output:
        demo = psutil.Popen(
            [sys.executable, "-m", "demo.run", *options], stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _wait_for(home / "output", "Vitrine answers", demo)
            started = demo.children(recursive=True)
            assert len(started) > 5
            demo.send_signal(signal.SIGINT)
            assert demo.wait(timeout=90) == 0
            assert [process for process in started if process.is_running()] == []
        finally:
            if demo.poll() is None:
                demo.send_signal(signal.SIGTERM)
                demo.wait(timeout=90)
        return (home / "output").read_text()


def _wait_for(file: Path, words: str, process: psutil.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while words not in file.read_text():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < deadline, file.read_text()
        time.sleep(0.5)
