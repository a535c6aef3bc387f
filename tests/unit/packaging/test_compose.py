"""compose.yaml: valid, pinned, without secrets, and with a configuration that the service takes."""

import re
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.codebase import ROOT
from tests.support.compose import ENVIRONMENT, compose, example, variables
from tests.support.placement import deployments_of
from vitrine.cli.main import app

GPU = "compose.gpu.yaml"
KEY = "the-admin-key"
SECRETS = {"VITRINE_KEY": KEY, "VITRINE_ADMIN_KEY_SHA256": sha256(KEY.encode()).hexdigest()}
FILES = {"cpu": (), "gpu": (GPU,)}
APP = Path("/opt/vitrine/app")


@pytest.fixture(params=FILES)
def services(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = compose(example() | SECRETS, *FILES[request.param])["services"]
    return found


def depended(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, how in service.get("depends_on", {}).items():
        yield name, how["condition"]


def test_the_files_are_valid_by_the_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, "compose.yaml", GPU], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_image_is_pinned(services: dict[str, Any]) -> None:
    tags = {name: service["image"].rpartition(":")[2] for name, service in services.items()}
    assert {name: tag for name, tag in tags.items() if not re.search(r"\d+[.-]\d+", tag)} == {}


def test_milvus_is_the_same_version_as_on_kubernetes() -> None:
    manifest = yaml.safe_load((ROOT / "k8s" / "milvus" / "milvus.yaml").read_text())
    image = compose(example() | SECRETS)["services"]["milvus"]["image"]
    assert manifest["spec"]["components"]["image"] == image


def test_what_others_wait_for_has_a_health_check_or_ends(services: dict[str, Any]) -> None:
    for service in services.values():
        for name, condition in depended(service):
            if condition == "service_healthy":
                assert services[name]["healthcheck"]["test"][0] == "CMD"
            else:
                assert condition == "service_completed_successfully"
                assert services[name].get("restart") is None


def test_every_service_that_stays_restarts_and_is_looked_at(services: dict[str, Any]) -> None:
    stay = {name for name, service in services.items() if service.get("restart") == "unless-stopped"}
    assert stay == services.keys() - {"demo", "bucket"}
    assert all("healthcheck" in services[name] for name in stay)


def test_data_lies_in_volumes_that_are_declared() -> None:
    found = compose(example() | SECRETS)
    used = {
        each.partition(":")[0]
        for service in found["services"].values()
        for each in service.get("volumes", ())
    }
    assert used == set(found["volumes"]) == {"postgres", "milvus", "etcd", "minio"}


def test_only_the_api_is_published_and_on_loopback(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"vitrine": ["127.0.0.1:8000:8000"]}


def test_the_demo_is_started_only_when_it_is_asked_for(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "profiles" in service} == {"demo"}


def test_no_secret_is_in_the_repository() -> None:
    assert variables(GPU) == set(example())
    given = example()
    assert (given["VITRINE_KEY"], given["VITRINE_ADMIN_KEY_SHA256"]) == ("", "")
    with pytest.raises(KeyError):
        compose(given)
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_commands_of_the_example_make_an_env_file(tmp_path: Path) -> None:
    commands = re.findall(r"(?m)^#   (.*)$", (ROOT / ENVIRONMENT).read_text())
    script = "\n".join(commands).replace(ENVIRONMENT, str(ROOT / ENVIRONMENT))
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True)
    made = dict(
        line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines() if line and line[0] != "#"
    )
    assert set(made) == set(example())
    assert made["VITRINE_ADMIN_KEY_SHA256"] == sha256(made["VITRINE_KEY"].encode()).hexdigest()
    passwords = [value for name, value in made.items() if name.endswith("_PASSWORD")]
    assert len(set(passwords)) == 3
    assert all(re.fullmatch(r"[0-9a-f]{48}", each) for each in passwords)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", FILES)
def test_the_service_gets_a_configuration_without_mistakes(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose(example() | SECRETS, *FILES[kind])["services"]["vitrine"]
    program, command, config = service["command"]
    assert (program, command) == ("vitrine", "serve")
    # The image holds it at its working directory.
    assert f"COPY {config} {APP / config}".rpartition("/")[0] in (ROOT / "Dockerfile").read_text()
    for name, value in service["environment"].items():
        # The image has the checkout there.
        monkeypatch.setenv(name, value.replace(str(APP), str(ROOT)))
    result = CliRunner().invoke(app, ["config", "check", str(ROOT / config)])
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_page_says_how_many_cpus_and_gpus_production_asks_for_on_one_machine() -> None:
    deployments = list(deployments_of((ROOT / "serve_config.yaml").read_text()))
    cpus, gpus = (sum(each.least * each.asked[kind] for each in deployments) for kind in ("CPU", "GPU"))
    said = f"asks for {cpus:.0f} CPUs and {['no', 'one', 'two', 'three'][round(gpus)]} GPUs"
    for page in (GPU, "docs/operations.md"):
        assert said in (ROOT / page).read_text(), page


@pytest.mark.parametrize("kind", FILES)
def test_the_image_is_a_target_of_the_dockerfile(kind: str) -> None:
    services = compose(example() | SECRETS, *FILES[kind])["services"]
    target = services["vitrine"]["build"]["target"]
    assert f" AS {target}\n" in (ROOT / "Dockerfile").read_text()
    assert services["vitrine"]["image"].endswith(f"-{target}")
    assert services["demo"]["image"] == services["vitrine"]["image"]
