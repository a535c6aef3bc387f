"""The command line as a whole: its help is fast, documented, and names each exit code."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.exits import MEANINGS, Exit
from cli.main import app
from cli.reference import filled
from vitrine import Vitrine
from vitrine.jobs import Jobs
from vitrine.keys import Keys

ROOT = Path(__file__).parents[2]
HEAVY = {"httpx", "pydantic", "PIL", "rich.progress", "ray", "torch", "numpy", "yaml", "vitrine"}


def test_the_page_about_the_command_line_is_as_the_commands_say() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    assert "## `vitrine search`" in page
    assert page == filled(page), "run python -m cli.reference docs/cli.md"


def test_every_exit_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Exit)


def test_help_loads_nothing_heavy() -> None:
    program = f"import sys, cli.main; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_the_commands_are_these() -> None:
    listed = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert list(listed) == [
        "serve", "search", "compare", "embed", "caption", "import", "models", "gaps", "stats", "ready", "plan",
        "build", "sample", "evaluate", "promote", "rollback", "prune", "verify", "adopt", "backup", "backups",
        "restore", "products", "jobs", "keys", "config",
    ]  # fmt: skip


def test_every_command_that_prints_an_answer_can_print_it_as_json() -> None:
    def without(command: Any, name: str) -> Iterator[str]:
        for part, each in getattr(command, "commands", {}).items():
            yield from without(each, f"{name} {part}".strip())
        if not hasattr(command, "commands") and not any("--json" in each.opts for each in command.params):
            yield name

    assert list(without(typer.main.get_command(app), "")) == ["serve"]


def test_every_call_of_the_client_has_a_command() -> None:
    source = "".join(path.read_text() for path in (ROOT / "cli").glob("*.py"))
    calls = {
        f"client.{prefix}{name}"
        for prefix, kind in (("", Vitrine), ("jobs.", Jobs), ("keys.", Keys))
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_")
    }
    unused = {call for call in calls if not re.search(rf"\b{re.escape(call)}\b", source)}
    # `search --like` finds what is similar, `embed` sends many inputs, `products list` and `jobs errors` go
    # through pages, `jobs wait` follows, and a client is closed by its context.
    assert unused == {
        "client.similar", "client.product_page", "client.jobs.error_page", "client.jobs.wait",
        "client.embed", "client.close",
    }  # fmt: skip


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"vitrine {version('vitrine')}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "cli.main", "--show-completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "_COMPLETE" in done.stdout
