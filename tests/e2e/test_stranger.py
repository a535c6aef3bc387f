"""The path of a stranger: a clone, an installation as pip does it, and a search on a running demo.

`pytest -s` prints how long each step took. The bar is a minute, which depends on the machine and is not asserted.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from demo.service import DemoService
from tests.codebase import ROOT

OURS = ("PYTHONPATH", "VITRINE_URL", "VITRINE_KEY")


def test_a_clone_is_installed_and_searches_the_demo(
    service: DemoService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git")
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    took_s: dict[str, float] = {}

    def step(name: str, *command: Any) -> str:
        began = time.monotonic()
        done = subprocess.run(
            [str(each) for each in command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        took_s[name] = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        return done.stdout

    programs = tmp_path / "environment" / "bin"
    step("clone", "git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", "checkout")
    step("environment", sys.executable, "-m", "venv", "environment")
    step("installation", programs / "pip", "install", "--quiet", "./checkout")
    found = step("search", programs / "vitrine", "search", "a red dress", "--url", service.base_url)
    with capsys.disabled():
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in took_s.items())
        print(f"\nfrom a clone to a search: {sum(took_s.values()):.1f} s ({parts})")
    assert "dress" in found
