"""`vitrine config check`: what it prints, and exit codes that scripts tell apart."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.exits import Exit, exit_of_own
from cli.main import app
from core.errors import ConfigError, Conflict, InvalidInput, NotFound, StoreUnavailable

ROOT = Path(__file__).parents[2]
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


def test_a_mistake_is_three_lines_and_an_exit_code(wrong: Path) -> None:
    result = CliRunner().invoke(app, ["config", "check", str(DEMO), str(wrong)])
    assert result.exit_code == Exit.MISCONFIGURED
    assert result.stdout == f"{DEMO}: no mistakes\n"
    where, is_wrong, right = result.stderr.splitlines()
    assert where.startswith(f"{wrong}:")
    assert where.endswith(": application dinov2, applications[2].args.family")
    assert is_wrong == "    wrong: is 'dinov3', text"
    assert right.startswith("    right: did you mean 'dinov2'? `openclip`, `dinov2`, `blip2`")


def test_programs_get_the_same_as_json(wrong: Path) -> None:
    result = CliRunner().invoke(app, ["config", "check", str(wrong), "--json"])
    (mistake,) = json.loads(result.stdout)
    assert result.exit_code == Exit.MISCONFIGURED
    assert (mistake["file"], mistake["application"]) == (str(wrong), "dinov2")
    assert (mistake["field"], mistake["nearest"]) == ("applications[2].args.family", "dinov2")


def test_variables_that_are_not_set_are_told_apart_from_mistakes(
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
    assert exit_of_own(error) is code  # type: ignore[arg-type]
