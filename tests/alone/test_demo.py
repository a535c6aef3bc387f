"""`make demo` from nothing, its end by Ctrl-C, and a second start from a backup.

That a start goes on from what is indexed is tested with `vitrine try`, which starts the same service.
"""

import base64
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from core.tcp_ports import free_port
from demo.catalog import demo_products
from demo.run import SEED
from demo.service import CONFIG
from tests.support.children import shown_on_failure
from vitrine.cli.main import app
from vitrine.cli.service import Exit

PRODUCTS = 8
START_TIMEOUT_S = 300


def test_the_demo_starts_from_nothing_and_after_a_disaster_from_its_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups = str(tmp_path / "backups")
    with tempfile.TemporaryDirectory(prefix="vitrine-") as name:
        home = Path(name)
        monkeypatch.setenv("VITRINE_HOME", name)
        first = _run_and_interrupt(home, lambda _: _vitrine("backup", str(CONFIG), backups))
        assert f"{PRODUCTS} products indexed (0 were there)" in first
        shutil.rmtree(home)
        home.mkdir()
        _vitrine("restore", str(CONFIG), backups)
        second = _run_and_interrupt(home, _assert_that_every_model_finds_every_image)
        assert f"{PRODUCTS} products indexed ({PRODUCTS} were there)" in second
        for output in (first, second):
            assert len(re.findall(r"^ +\d+\.\d s ", output, re.MULTILINE)) == 2


def _vitrine(*arguments: str) -> None:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == Exit.OK, done.output


def _assert_that_every_model_finds_every_image(base_url: str) -> None:
    with httpx.Client(base_url=base_url, timeout=60) as client:
        for product in demo_products(SEED, PRODUCTS):
            parts = [{"type": "image", "image": base64.b64encode(data).decode()} for data in product.images]
            for model in ("openclip", "dinov2", "blip2", "ensemble"):
                for part in parts:
                    answer = client.post("/v1/search", json={"query": [part], "model": model, "limit": 1})
                    assert answer.status_code == 200, answer.text
                    assert [each["product_id"] for each in answer.json()["results"]] == [product.product_id]


def _run_and_interrupt(home: Path, meanwhile: Callable[[str], None] | None = None) -> str:
    port = free_port()
    options = ["--home", str(home), "--port", str(port), "--products", str(PRODUCTS)]
    with (home / "output").open("w+") as output, shown_on_failure(home / "service.log"):
        command = [sys.executable, "-m", "demo.run", *options]
        demo = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_for(home, "Vitrine answers", demo)
            if meanwhile is not None:
                meanwhile(f"http://127.0.0.1:{port}")
            started = demo.children(recursive=True)
            assert len(started) > 5
            scratch = _scratch_folders(started)
            assert scratch
            demo.send_signal(signal.SIGINT)
            assert demo.wait(timeout=90) == 0
            assert [process for process in started if process.is_running()] == []
            assert [folder for folder in scratch if folder.exists()] == []
        finally:
            if demo.poll() is None:
                demo.send_signal(signal.SIGTERM)
                demo.wait(timeout=90)
        return (home / "output").read_text()


def _scratch_folders(processes: list[psutil.Process]) -> set[Path]:
    """The temporary folders that a service has given its processes; Ray's logs, elsewhere, stay on purpose."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):
            found.add(Path(process.environ().get("TMPDIR", tempfile.gettempdir())))
    return found - {Path(tempfile.gettempdir())}


def _wait_for(home: Path, words: str, process: psutil.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while words not in (home / "output").read_text():
        output = (home / "output").read_text()[-5000:]
        assert process.poll() is None, output
        assert time.monotonic() < deadline, output
        time.sleep(0.5)
