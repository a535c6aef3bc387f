"""Private names of Ray: each in one module, for the release that they were read in."""

import ast
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from ray.serve.context import _get_serve_request_context

from deployments.observability.ray_private import changed_serve_request, serve_request_id

ROOT = Path(__file__).parents[3]
LAYERS = ("core", "models", "catalog", "milvus", "deployments", "jobs", "vitrine", "demo")
KEEPERS = {
    "ray.serve.context._get_global_client": "deployments/observability/ray_private.py",
    "ray.serve.context._get_serve_request_context": "deployments/observability/ray_private.py",
    "ray.serve.context._serve_request_context": "deployments/observability/ray_private.py",
    "ray._private.parameter": "jobs/runner/cluster.py",
    "ray._private.ray_constants": "jobs/runner/cluster.py",
    "ray._private.services": "jobs/runner/cluster.py",
    "ray._common.formatters.JSONFormatter": "jobs/runner/start.py",
}


def private_imports() -> Iterator[tuple[str, str]]:
    """Yield each private name of Ray that a layer imports, with the module that does."""
    for path in (path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from ((name, str(path.relative_to(ROOT))) for name in names if "._" in name)


def test_the_release_of_ray_is_the_one_whose_private_names_are_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [each for each in project["dependencies"] if each.startswith("ray[")]
    assert bounds == ["ray[data,serve]>=2.60,<2.61"]
    assert version("ray").startswith("2.60."), "check the names of KEEPERS in the new release first"


def test_each_private_name_of_ray_is_in_one_module() -> None:
    assert sorted(private_imports()) == sorted(KEEPERS.items())


@pytest.mark.parametrize("field", ["request_id", "_internal_request_id"])
def test_a_field_of_serves_context_is_changed_for_a_block_alone(field: str) -> None:
    before = serve_request_id()
    with changed_serve_request(**{field: "shop-17"}):
        assert getattr(_get_serve_request_context(), field) == "shop-17"
    assert getattr(_get_serve_request_context(), field) != "shop-17"
    assert serve_request_id() == before
