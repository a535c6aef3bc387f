"""The Dockerfile is sound, and copies what is there and what the pods expect."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from models.config import EncoderConfig
from tests.codebase import LAYERS
from tests.support.manifests import ROOT, ray_pods, rayservice

TEXT = (ROOT / "Dockerfile").read_text()


def copied() -> list[str]:
    """What the image takes out of the repository."""
    lines = re.findall(r"(?m)^COPY (?!--from)(.+)$", TEXT)
    return [source for line in lines for source in line.split()[:-1]]


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("there is no hadolint beside this Python")
    settings = tmp_path / "none.yaml"
    settings.write_text("failure-threshold: style\n")
    command = [hadolint, "--config", str(settings), str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_copied_is_there_and_not_ignored() -> None:
    admitted = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert set(copied()) == admitted
    assert [name for name in copied() if not (ROOT / name).exists()] == []


def test_every_package_of_the_service_is_copied() -> None:
    assert {name.split("/")[0] for name in LAYERS} <= set(copied())


def test_the_image_runs_as_the_user_of_the_pods() -> None:
    targets = re.split(r"(?m)^FROM ", TEXT)
    for target in ("runtime AS cpu", "runtime AS gpu"):
        (stage,) = (each for each in targets if each.startswith(f"{target}\n"))
        assert re.search(r"(?m)^USER ", stage), target
    (user,) = set(re.findall(r"(?m)^USER (\d+):(\d+)$", TEXT))
    for name, pod in ray_pods():
        context = pod["spec"]["securityContext"]
        assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user, name


def test_the_targets_are_there_that_the_page_and_the_overlays_name() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    named = {*re.findall(r"--target (\S+)", page), *re.findall(r"[Tt]arget `([^`]+)`", page)}
    images = [container["image"] for _, pod in ray_pods() for container in pod["spec"]["containers"]]
    named |= {image.rpartition("-")[2] for image in images}
    assert named == {"cpu", "gpu", "gpu-with-weights"}
    assert named <= set(re.findall(r"(?m)^FROM \S+ AS (\S+)$", TEXT))


def test_the_extras_for_object_stores_exist() -> None:
    (stores,) = re.findall(r"(?m)^ARG STORES=(.+)$", TEXT)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(stores.split(",")) <= extras.keys()


def test_what_is_compiled_lies_in_a_folder_of_the_user_which_volumes_keep() -> None:
    (stage,) = (each for each in re.split(r"(?m)^FROM ", TEXT) if each.startswith("runtime AS gpu\n"))
    folders = re.findall(r"(?:TORCHINDUCTOR|TRITON)_CACHE_DIR=(\S+)/\w+", stage)
    assert len(folders) == 2
    (folder,) = set(folders)
    # In the home, the one place of a pod's read-only root, beside /tmp, that can be written to.
    assert f"install --directory --owner=vitrine --group=vitrine {folder}\n" in stage
    compose = yaml.safe_load((ROOT / "compose.gpu.yaml").read_text())
    (mount,) = compose["services"]["vitrine"]["volumes"]
    assert mount == f"compiled:{folder}"
    assert set(compose["volumes"]) == {"compiled"}
    cluster = rayservice("overlays/gpu", "compiler_cache")["spec"]["rayClusterConfig"]
    for group in cluster["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        has_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert any(each["mountPath"] == folder for each in container["volumeMounts"]) == has_gpu
        claims = [each.get("persistentVolumeClaim", {}) for each in group["template"]["spec"]["volumes"]]
        assert any(each.get("claimName") == "vitrine-compiled" for each in claims) == has_gpu


def test_the_image_for_gpus_has_the_compiler_that_compiled_models_need() -> None:
    (stage,) = (each for each in re.split(r"(?m)^FROM ", TEXT) if each.startswith("runtime AS gpu\n"))
    assert EncoderConfig(name="a", family="fake", compile=True).compile
    installed = " ".join(re.findall(r"install --yes --no-install-recommends ([^\\\n]+)", stage)).split()
    assert {"gcc", "libc6-dev"} <= set(installed)


@pytest.mark.parametrize("index", ["", "http://index/cpu"])
def test_an_index_of_pytorch_hides_no_pinned_version_of_other_packages(index: str) -> None:
    (options,) = re.findall(r"\$\{TORCH_INDEX:\+[^}]+\}", TEXT)
    echo = ["sh", "-c", f"printf '%s\n' {options}"]
    done = subprocess.run(echo, env={"TORCH_INDEX": index}, capture_output=True, text=True, check=True)
    given = ["--index", index, "--index-strategy", "unsafe-best-match"] if index else []
    assert done.stdout.split() == given


def test_the_license_goes_into_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["license-files"]) <= set(copied())
