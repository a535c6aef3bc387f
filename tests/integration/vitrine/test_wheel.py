"""The package of the client: its files, and the path of somebody who installs it and calls a running service."""

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.codebase import ROOT
from tests.support.vitrine_stand import Stand
from vitrine.cli.service import Exit
from vitrine.client import Vitrine

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "vitrine")
UV = Path(sys.executable).with_name("uv")
MAX_BYTES = 1_000_000
PATIENCE_S = 300
"""For one command."""
PROGRAM = """
import sys
from vitrine import TextPart, Vitrine
with Vitrine(sys.argv[1]) as shop:
    shop.put_product("mine", title="my hat", images=[sys.argv[2]])
    page = shop.search([TextPart("my hat")], limit=1, keyword_weight=1)
    print(page.results[0].product_id)
"""


@dataclass(frozen=True, slots=True)
class Client:
    """An environment that holds the wheel and what it needs, and nothing else."""

    wheel: Path
    environment: Path

    def run(self, program: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
        return _run(self.environment, self.environment / "bin" / program, *arguments)


def _run(folder: Path, *command: Any) -> subprocess.CompletedProcess[str]:
    left_out = ("PYTHONPATH", "VITRINE_URL", "VITRINE_KEY")
    return subprocess.run(
        [str(each) for each in command],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in left_out},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def _uv(folder: Path, *arguments: Any) -> str:
    done = _run(folder, UV, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    folder = tmp_path_factory.mktemp("client")
    # A copy, for setuptools writes beside the sources.
    sources = folder / "checkout"
    sources.mkdir()
    for source in (ROOT / name for name in SOURCES):
        if source.is_dir():
            shutil.copytree(source, sources / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, sources)
    environment = folder / "environment"
    with_setuptools = ("--no-build-isolation", "--python", sys.executable)
    _uv(folder, "build", "--wheel", "--out-dir", folder / "wheels", *with_setuptools, sources)
    (wheel,) = (folder / "wheels").glob("*.whl")
    _uv(folder, "venv", "--python", sys.executable, environment)
    pinned = ("--constraint", ROOT / "constraints.txt")
    _uv(folder, "pip", "install", "--python", environment, *pinned, wheel)
    return Client(wheel, environment)


def test_the_wheel_holds_the_client_alone(client: Client) -> None:
    with zipfile.ZipFile(client.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licenses = {name.partition("/licenses/")[2] for name in wheel.namelist() if "/licenses/" in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "vitrine").rglob("*.py")}
    assert names == {*modules, "vitrine/py.typed"}
    assert licenses == {"LICENSE", "NOTICE"}
    assert client.wheel.stat().st_size < MAX_BYTES


def test_it_brings_nothing_of_the_service(client: Client) -> None:
    listed = _uv(client.environment, "pip", "freeze", "--python", client.environment)
    names = {line.split("==")[0].split(" @ ")[0] for line in listed.splitlines()}
    assert {"vitrine", "httpx", "pydantic", "rich", "typer"} <= names
    assert len(names) < 25, names
    found = client.run("python", "-c", "import importlib.util as u; print(u.find_spec('core'))")
    assert found.stdout == "None\n"


@pytest.mark.usefixtures("stocked")
def test_somebody_who_installs_it_searches(client: Client, stand: Stand) -> None:
    found = client.run("vitrine", "search", "green shirt", "--keyword-weight", "1", "--url", stand.url)
    assert found.returncode == Exit.OK, found.stderr
    assert "green shirt" in found.stdout


def test_its_commands_call_the_service(
    client: Client, stocked: Vitrine, stand: Stand, tmp_path: Path
) -> None:
    image = str(tmp_path / "red.png")
    for command in (
        ("models",),
        ("products", "get", "red"),
        ("embed", "first", image, "a text"),
        ("compare", image, "--model", "first"),
        ("jobs", "list"),
    ):
        done = client.run("vitrine", *command, "--url", stand.url, "--json")
        assert done.returncode == Exit.OK, done.stderr
    refused = client.run("vitrine", "products", "get", "none", "--url", stand.url)
    assert (refused.returncode, "Traceback" in refused.stderr) == (Exit.NOT_FOUND, False)
    drawn = client.run("vitrine", "search", image, "--thumbnails", "--url", stand.url)
    assert (drawn.returncode, "Pillow" in drawn.stderr) == (Exit.USAGE, True)


def test_programs_use_it(client: Client, stocked: Vitrine, stand: Stand, tmp_path: Path) -> None:
    done = client.run("python", "-c", PROGRAM, stand.url, tmp_path / "red.png")
    assert done.stdout == "mine\n", done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("serve", "CONFIG"),
        ("config", "check", "CONFIG"),
        ("backup", "CONFIG", "backups"),
        ("build", "--model", "first", "--local", "--config", "CONFIG"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_needs_the_service_says_which_install_it_needs(
    client: Client, command: tuple[str, ...]
) -> None:
    config = ROOT / "demo" / "serve_config.demo.yaml"
    done = client.run("vitrine", *(str(config) if each == "CONFIG" else each for each in command))
    assert done.returncode == Exit.USAGE
    (line,) = done.stderr.splitlines()
    assert "pip install --editable '.[server]'" in line
