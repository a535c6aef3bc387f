"""The layers import downward only, each heavy library has one keeper, and the import names are ours."""

import subprocess
import sys
from pathlib import Path

import pytest

import milvus
from tests.codebase import CLI, LAYERS, ROOT, SCHEMAS, circles, imports, layer_of, modules, upward

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


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_layers_below_it(layer: str) -> None:
    assert upward(layer) == []


def test_no_modules_import_each_other() -> None:
    assert circles() == []


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != CLI])
def test_a_heavy_library_stays_with_its_keeper(layer: str) -> None:
    strays = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(layer)
        for name in imports(path)
        if layer not in KEEPERS.get(name.split(".")[0], {layer})
    ]
    assert strays == []


def test_the_schemas_need_pydantic_alone() -> None:
    names = {name for path in modules(SCHEMAS) for name in imports(path) if layer_of(name) != SCHEMAS}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names <= {"pydantic", "pydantic_core"}


def test_the_layer_milvus_is_ours() -> None:
    assert Path(milvus.__file__).parent == ROOT / "milvus"


@pytest.mark.slow
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
