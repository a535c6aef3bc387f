"""Command line: fast help, documented exit codes, `config check`, and whole output."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from core.errors import ConfigError, Conflict, InvalidInput, NotFound, StoreUnavailable
from core.jobs import KINDS, VERSION_FIELDS, Candidate
from vitrine.cli.main import app
from vitrine.cli.output import table
from vitrine.cli.service import Exit, Service, asks, exit_of
from vitrine.client import Jobs, Keys, Vitrine

ROOT = Path(__file__).parents[3]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_the_page_about_the_command_line_is_as_the_commands_say(tmp_path: Path) -> None:
    (command,) = re.findall(r"/(typer .*)--output docs/cli.md", (ROOT / "Makefile").read_text())
    page = tmp_path / "cli.md"
    subprocess.run(
        [sys.executable, "-m", *shlex.split(command), "--output", page],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    assert page.read_text() == (ROOT / "docs" / "cli.md").read_text(), "run make generate"
    assert {int(code) for code in re.findall(r"^- (\d+): ", page.read_text(), re.MULTILINE)} == set(Exit)


def test_the_commands_are_these() -> None:
    assert list(COMMANDS) == [
        "serve", "search", "compare", "embed", "caption", "try", "import", "models", "gaps", "stats", "ready",
        "plan", "build", "sample", "evaluate", "promote", "rollback", "prune", "verify", "adopt", "backup", "backups",
        "restore", "products", "jobs", "keys", "config",
    ]  # fmt: skip


def test_every_kind_of_job_is_a_command_that_runs_here_too() -> None:
    # `prune --files` is the command of `prune_files`.
    for kind in (kind.partition("_")[0] for kind in KINDS):
        options = {name for parameter in COMMANDS[kind].params for name in parameter.opts}
        assert {"--local", "--config", "--address", "--detach"} <= options, kind


def test_a_candidate_has_the_same_options_in_every_verb() -> None:
    for kind, args in KINDS.items():
        if issubclass(args, Candidate):
            helped = {each.name for each in COMMANDS[kind].params if getattr(each, "help", None)}
            assert {*VERSION_FIELDS, "model"} <= helped, kind


@pytest.mark.parametrize(
    "options",
    [("--config", __file__), ("--address", "auto"), ("--local", "--detach"), ("--local", "--keep", "-1")],
)
def test_options_that_do_not_go_together_are_refused(options: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["prune", "--model", "dinov2", "--yes", *options])
    assert result.exit_code == Exit.USAGE, result.output


@pytest.mark.parametrize("value", ["red", "[1]", '{"name": '])
def test_an_ensemble_that_is_no_json_object_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["evaluate", "--ensemble", value])
    assert result.exit_code == Exit.USAGE, result.output
    assert "--ensemble" in result.stderr
    assert "give a JSON object such as" in result.stderr


def test_an_error_without_a_file_is_not_taken_for_one_of_a_file() -> None:
    def fails() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        asks(fails)()


@pytest.mark.parametrize(
    "command",
    [("search",), ("compare",), ("embed", "m"), ("caption",), ("products", "put", "hat")],
)
def test_an_image_by_a_scheme_that_is_not_fetched_is_one_sentence(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "ftp://shop.test/hat.jpg"])
    assert result.exit_code == Exit.USAGE, result.output
    assert result.stderr == "ftp://shop.test/hat.jpg: neither a file nor an http or https URL\n"


def test_every_command_that_prints_an_answer_can_print_it_as_json() -> None:
    def without(command: Any, name: str) -> Iterator[str]:
        for part, each in getattr(command, "commands", {}).items():
            yield from without(each, f"{name} {part}".strip())
        if not hasattr(command, "commands") and not any("--json" in each.opts for each in command.params):
            yield name

    assert list(without(typer.main.get_command(app), "")) == ["serve", "try"]


def test_every_call_of_the_client_has_a_command() -> None:
    source = "".join(path.read_text() for path in (ROOT / "vitrine" / "cli").glob("*.py"))
    calls = {
        f"client.{prefix}{name}"
        for prefix, kind in (("", Vitrine), ("jobs.", Jobs), ("keys.", Keys))
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_")
    }
    unused = {call for call in calls if not re.search(rf"\b{re.escape(call)}\b", source)}
    # `search --like` finds what is similar, `embed` sends many inputs, `products list` and `jobs errors` go
    # through pages, `jobs wait` follows, and a client is closed by its context. Commands change one product at a
    # time, or import many as a job.
    assert unused == {
        "client.similar", "client.product_page", "client.jobs.error_page", "client.jobs.wait",
        "client.embed", "client.close", "client.put_products", "client.patch_products", "client.delete_products",
    }  # fmt: skip


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"vitrine {version('vitrine')}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "vitrine.cli.main", "--show-completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "_COMPLETE" in done.stdout


DEMO = ROOT / "demo" / "serve_config.demo.yaml"


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITRINE_HOME", "/srv/vitrine")
    monkeypatch.setenv("VITRINE_WEIGHTS", "/srv/weights")
    file = tmp_path / "wrong.yaml"
    file.write_text(DEMO.read_text().replace("family: dinov2", "family: dinov3"))
    return file


def test_a_sound_file_is_said_to_be_sound(wrong: Path) -> None:
    result = CliRunner().invoke(app, ["config", "check", str(DEMO)])
    assert (result.exit_code, result.stdout) == (Exit.OK, f"{DEMO}: no mistakes\n")


def test_a_mistake_is_a_line_and_an_exit_code(wrong: Path) -> None:
    result = CliRunner().invoke(app, ["config", "check", str(DEMO), str(wrong)])
    assert result.exit_code == Exit.MISCONFIGURED
    assert result.stdout == f"{DEMO}: no mistakes\n"
    (mistake,) = result.stderr.splitlines()
    assert mistake.startswith(f"{wrong}:")
    assert "applications[2].args.family (dinov2): Input should be 'openclip', 'transformers', " in mistake


def test_programs_get_the_same_as_json(wrong: Path) -> None:
    result = CliRunner().invoke(app, ["config", "check", str(wrong), "--json"])
    (mistake,) = json.loads(result.stdout)
    assert result.exit_code == Exit.MISCONFIGURED
    assert (mistake["file"], mistake["application"]) == (str(wrong), "dinov2")
    assert (mistake["field"], mistake["unset"]) == ("applications[2].args.family", False)


def test_variables_that_are_not_set_are_listed_apart_from_mistakes(
    wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VITRINE_HOME")
    assert CliRunner().invoke(app, ["config", "check", str(DEMO)]).exit_code == Exit.UNSET
    assert CliRunner().invoke(app, ["config", "check", str(DEMO), str(wrong)]).exit_code == Exit.MISCONFIGURED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), Exit.MISCONFIGURED),
        (NotFound("x"), Exit.NOT_FOUND),
        (Conflict("x"), Exit.REFUSED),
        (StoreUnavailable("x"), Exit.TRY_LATER),
        (InvalidInput("x"), Exit.USAGE),
    ],
)
def test_an_error_of_this_process_has_an_exit_code(error: Exception, code: Exit) -> None:
    assert exit_of(error) is code  # type: ignore[arg-type]


LONG = "0123456789" * 30
COLUMNS = ("version", "device", "checkpoint")
ROWS = [(LONG, "cpu", f"/srv/weights/{LONG}")]


def test_a_long_id_is_whole_when_piped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    Service().show({}, lambda: table(COLUMNS, ROWS, title=f"collection_{LONG}"))
    title, _, row = capsys.readouterr().out.splitlines()
    assert title == f"collection_{LONG}"
    assert row.split() == [LONG, "cpu", f"/srv/weights/{LONG}"]


def test_a_long_id_is_folded_on_a_terminal() -> None:
    terminal = io.StringIO()
    Console(file=terminal, width=40).print(table(("job",), [(LONG,)]))
    assert "".join(terminal.getvalue().split()) == f"job{LONG}"
