"""Kubernetes manifests as kustomize renders them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
RENDERED = (
    "overlays/gpu",
    "overlays/demo",
    "jobs/build",
    "jobs/evaluate",
    "jobs/verify",
    "jobs/repair",
    "jobs/backup",
    "jobs/restore",
    "jobs/weights",
    "milvus",
)
COMPONENTS = tuple(sorted(each.name for each in (K8S / "components").iterdir() if each.is_dir()))
"""What overlays may add, by the cloud, ingress controller and upgrades that a cluster has."""
Manifest = dict[str, Any]


@cache
def render(folder: str, *components: str) -> tuple[Manifest, ...]:
    """Render a kustomization below k8s, with components added; skips the test where there is no kubectl."""
    if not components:
        return _kustomize(K8S / folder)
    with tempfile.TemporaryDirectory() as home:
        below = [os.path.relpath(K8S / "components" / each, Path(home).resolve()) for each in components]
        added = {"resources": [os.path.relpath(K8S / folder, Path(home).resolve())], "components": below}
        (Path(home) / "kustomization.yaml").write_text(yaml.safe_dump(added))
        return _kustomize(Path(home))


def kubectl() -> str:
    """Find kubectl; skips the test where there is none."""
    beside_python = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    found = beside_python or shutil.which("kubectl")
    if found is None:
        # A module may render for its parameters, before there is a test.
        pytest.skip("there is no kubectl, whose kustomize renders the manifests", allow_module_level=True)
    return found


def _kustomize(folder: Path) -> tuple[Manifest, ...]:
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(folder: str, kind: str, *components: str) -> list[Manifest]:
    return [manifest for manifest in render(folder, *components) if manifest["kind"] == kind]


def rayservice(folder: str, *components: str) -> Manifest:
    (found,) = of_kind(folder, "RayService", *components)
    return found


def env_of(pod: Manifest) -> dict[str, str]:
    """The variables whose values stand in the template of a pod."""
    return {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0]["env"]}


def cluster_of(manifest: Manifest) -> Manifest:
    """The Ray cluster that a RayService, RayJob or RayCronJob describes."""
    spec: Manifest = manifest["spec"]
    spec = spec.get("jobTemplate", spec)
    cluster: Manifest = spec["rayClusterConfig"] if "rayClusterConfig" in spec else spec["rayClusterSpec"]
    return cluster


def offered(group: Manifest) -> dict[str, float]:
    """The resources that Ray sees on one pod of a group."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    kinds: dict[str, float] = json.loads(json.loads(group["rayStartParams"]["resources"]))
    return {"CPU": float(limits["cpu"]), "GPU": float(limits.get("nvidia.com/gpu", 0)), **kinds}


def clusters() -> list[tuple[str, Manifest]]:
    return [
        (folder, cluster_of(manifest))
        for folder in RENDERED
        for kind in ("RayService", "RayJob", "RayCronJob")
        for manifest in of_kind(folder, kind)
    ]


def ray_pods() -> list[tuple[str, Manifest]]:
    """Every pod template of every Ray cluster, with a name for messages."""
    return [
        (f"{folder} {group.get('groupName', 'head')}", group["template"])
        for folder, cluster in clusters()
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
