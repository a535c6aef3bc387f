"""Private names of Ray: each in one module, for the release that they were read in."""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.project import declared

ROOT = Path(__file__).parents[3]
LAYERS = ("core", "models", "catalog", "milvus", "deployments", "jobs", "vitrine", "demo")
KEEPERS = {
    "ray.serve.context._get_global_client": "deployments/observability/telemetry.py",
    "ray.serve.context._get_serve_request_context": "deployments/observability/telemetry.py",
    "ray.serve.context._serve_request_context": "deployments/observability/telemetry.py",
    "ray._private.parameter": "jobs/runner/cluster.py",
    "ray._private.ray_constants": "jobs/runner/cluster.py",
    "ray._private.services": "jobs/runner/cluster.py",
    "ray._common.formatters.JSONFormatter": "jobs/runner/start.py",
}


def private_uses() -> Iterator[tuple[str, str]]:
    """Yield each private name of Ray that a layer uses, with the module that does."""
    for path in (path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")):
        if "ray" in (source := path.read_text()):
            yield from ((name, str(path.relative_to(ROOT))) for name in private_names(source))


def private_names(source: str) -> set[str]:
    """Return the private names of Ray that a module imports, or reaches by attributes of what it imports."""
    nodes = list(ast.walk(ast.parse(source)))
    imported = dict(pair for node in nodes for pair in ray_imports(node))
    names = {name for name in imported.values() if "._" in name}
    for node in nodes:
        if isinstance(node, ast.Attribute) and re.match("_(?!_)", node.attr):
            root, *rest = ast.unparse(node).split(".")
            if root in imported:
                names.add(".".join([imported[root], *rest]))
    return names


def ray_imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names that an import of Ray binds, each with its full name."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == "ray":
                yield alias.asname or alias.name, alias.name
                if alias.asname is None:
                    yield "ray", "ray"
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
        yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from ray._private import services", {"ray._private.services"}),
        ("import ray._private.worker", {"ray._private.worker"}),
        ("import ray._private.worker as worker", {"ray._private.worker"}),
        ("import ray\nray._private.worker.global_worker", {"ray._private"}),
        (
            "from ray import serve\nserve.context._get_global_client()",
            {"ray.serve.context._get_global_client"},
        ),
        ("import ray\nray.init(); ray.__version__; self._ray", set()),
    ],
)
def test_private_names_of_ray_are_found_however_they_are_reached(source: str, names: set[str]) -> None:
    assert private_names(source) == names


def test_the_release_of_ray_is_the_one_whose_private_names_are_used() -> None:
    assert str(declared("server")["ray"].specifier) == "<2.61,>=2.60"
    assert version("ray").startswith("2.60."), "check the names of KEEPERS in the new release first"


def test_each_private_name_of_ray_is_in_one_module() -> None:
    assert sorted(private_uses()) == sorted(KEEPERS.items())
