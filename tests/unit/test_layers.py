"""The layers import downward only, each heavy library has one keeper, and the import names are ours."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import milvus

ROOT = Path(__file__).parents[2]
SCHEMAS = "vitrine/schemas"
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "models": {"core"},
    "catalog": {"core"},
    "milvus": {"core"},
    "deployments": {"core", "models", "catalog", "milvus", SCHEMAS},
    "jobs": {"core", "models", "catalog", "milvus"},
    "vitrine/cli": {"core", "vitrine", SCHEMAS},
    "demo": {"core", "models"},
    "vitrine": {SCHEMAS},
    SCHEMAS: set(),
}
CLI = "vitrine/cli"
KEEPERS = {
    "torch": {"models", "demo"},
    "open_clip": {"models", "demo"},
    "transformers": {"models", "demo"},
    "timm": {"models", "demo"},
    "bitsandbytes": {"models"},
    "pymilvus": {"milvus"},
    "sqlalchemy": {"catalog"},
    "httpcore": {"catalog"},
    "fastapi": {"deployments"},
    "ray": {"deployments", "jobs"},
}


def imports(layer: str, at_import_time: bool = False) -> Iterator[tuple[Path, str]]:
    for path in sorted((ROOT / layer).rglob("*.py")):
        if layer == "vitrine" and {ROOT / CLI, ROOT / SCHEMAS} & set(path.parents):
            continue
        tree = ast.parse(path.read_text())
        for node in tree.body if at_import_time else ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((path, _layer_or_library(alias.name)) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield path, _layer_or_library(node.module)


def _layer_or_library(module: str) -> str:
    return SCHEMAS if module.startswith("vitrine.schemas") else module.split(".")[0]


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_layers_below_it(layer: str) -> None:
    # The command line starts things in the layers above, but only when a command asks for it.
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name in imports(layer, at_import_time=layer == CLI)
        if name in ALLOWED and name != layer and name not in ALLOWED[layer]
    ]
    assert upward == []


@pytest.mark.parametrize("layer", [layer for layer in ALLOWED if layer != CLI])
def test_a_heavy_library_stays_with_its_keeper(layer: str) -> None:
    strays = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name in imports(layer)
        if name in KEEPERS and layer not in KEEPERS[name]
    ]
    assert strays == []


def test_the_schemas_need_pydantic_alone() -> None:
    needed = {name for _, name in imports(SCHEMAS)} - {SCHEMAS}
    assert needed - set(sys.stdlib_module_names) == {"pydantic", "pydantic_core"}


def test_the_layer_milvus_is_ours() -> None:
    assert Path(milvus.__file__).parent == ROOT / "milvus"


def test_what_runs_no_model_imports_no_torch() -> None:
    modules = ", ".join(
        f"deployments.{name}"
        for name in (
            "app",
            "replicas.gateway",
            "replicas.ensemble",
            "replicas.repair",
            "replicas.milvus_lite",
        )
    )
    heavy = "{'torch', 'transformers', 'open_clip', 'timm'}"
    program = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
