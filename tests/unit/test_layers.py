"""The layers import downward only, each heavy library has one keeper, and the import names are ours."""

import subprocess
import sys

import pytest

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


REPLICAS = ("gateway", "ensemble", "repair", "milvus_lite")
LIGHT = {
    "replicas without a model": (
        (
            "deployments.app",
            *(f"deployments.replicas.{name}" for name in REPLICAS),
            "milvus.lite",
            "milvus.memory",
        ),
        {"torch", "transformers", "open_clip", "timm", "sklearn", "scipy", "sympy", "ray.data"},
    ),
    "reading of images": (("models.images", "models.config"), {"torch", "ray"}),
    "help of the command line": (
        ("vitrine.cli.main",),
        {
            "httpx",
            "pydantic",
            "PIL",
            "rich.progress",
            "ray",
            "torch",
            "numpy",
            "yaml",
            "vitrine.client",
            "core",
        },
    ),
    "import of the client": (
        ("vitrine",),
        {"httpx", "pydantic", "rich", "typer", "asyncio", "core"},
    ),
}
"""What is to start soon, with the libraries that it must not load."""


@pytest.mark.slow
@pytest.mark.parametrize("what", LIGHT)
def test_what_does_without_a_heavy_library_does_not_load_it(what: str) -> None:
    modules, heavy = LIGHT[what]
    program = f"import sys, {', '.join(modules)}; print(sorted({heavy} & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
