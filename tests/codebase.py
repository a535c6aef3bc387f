"""`python -m tests.codebase`: figures of the codebase, as a table and, in the last line, as JSON.

They are the size of each layer, how its modules import one another, and how many files of the product one search,
one put and one promotion pass. `--files` lists those files.
"""

import argparse
import ast
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("core", "models", "catalog", "milvus", "deployments", "jobs", "vitrine")
CLI, SCHEMAS = "vitrine/cli", "vitrine/schemas"
LAYERS: dict[str, set[str]] = {
    "core": set(),
    "models": {"core"},
    "catalog": {"core"},
    "milvus": {"core"},
    "deployments": {"core", "models", "catalog", "milvus", SCHEMAS},
    "jobs": {"core", "models", "catalog", "milvus"},
    CLI: {"vitrine", SCHEMAS},
    "demo": {"core", "models", "vitrine", SCHEMAS},
    "vitrine": {SCHEMAS},
    SCHEMAS: set(),
}
"""Layers, each with those that it may import."""


@dataclass(frozen=True, slots=True)
class Size:
    """Python files of a folder; lines are physical ones, with blanks and docstrings."""

    lines: int
    files: int
    median: float


def size(*folders: str) -> Size:
    """Count the lines of the Python files below folders."""
    lines = [len(path.read_text().splitlines()) for folder in folders for path in files(folder)]
    return Size(sum(lines), len(lines), statistics.median(lines))


def files(folder: str) -> list[Path]:
    """List the Python files below a folder."""
    return sorted((ROOT / folder).rglob("*.py"))


def modules(layer: str) -> list[Path]:
    """List the modules of a layer."""
    return [path for path in files(layer.split("/")[0]) if layer_of(module_name(path)) == layer]


def layer_of(name: str) -> str | None:
    """Name the layer of a module, or of something in it; None where it is no code of these layers."""
    parts = name.split(".")
    return next((each for each in ("/".join(parts[:2]), parts[0]) if each in LAYERS), None)


@cache
def imports(path: Path, at_import_time: bool = False) -> Sequence[str]:
    """List the full names that a module imports: `a.b.name` of `from a.b import name`.

    What is imported for type checkers alone is left out, and with `at_import_time` what functions import when
    they are called.
    """
    tree = ast.parse(path.read_text())
    for_types = {id(each) for node in tree.body if _is_for_types(node) for each in ast.walk(node)}
    found = []
    for node in tree.body if at_import_time else ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def upward(name: str) -> list[str]:
    """List the imports of a layer that go to layers that it does not stand on.

    The command line starts things in the layers above, but only when a command asks for it.
    """
    return [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in modules(name)
        for imported in sorted(set(imports(path, at_import_time=name == CLI)))
        if layer_of(imported) not in LAYERS[name] | {name, None}
    ]


def circles() -> list[list[str]]:
    """List the groups of modules that import one another, imports within functions included."""
    names = {module_name(path): path for folder in PRODUCT for path in files(folder)}
    graph = {
        # A module is imported by its own name, or by that of something in it.
        name: ({each if each in names else each.rpartition(".")[0] for each in imports(path)} & names.keys())
        - {name}
        for name, path in names.items()
    }
    reached = {name: _reachable(graph, name) for name in graph}
    groups = {
        tuple(sorted({other for other in reached[name] if name in reached[other]}))
        for name in graph
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        if (name := ahead.pop()) not in found:
            found.add(name)
            ahead += graph[name]
    return found


def module_name(path: Path) -> str:
    """Name a file as Python imports it."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.codebase", description=main.__doc__)
    parser.add_argument("--files", action="store_true", help="list the files that each call passes")
    options = parser.parse_args(arguments)
    for folder in (*PRODUCT, "tests"):
        each = size(folder)
        print(f"{folder:24} {each.lines:6} lines {each.files:4} files, median {each.median:g}")
    from tests.support.traced_calls import traced_calls

    passed = traced_calls()
    product = size(*PRODUCT)
    figures: dict[str, float] = {
        "product_lines": product.lines,
        "product_files": product.files,
        "product_median_lines": product.median,
        "modules_flat_in_deployments": len(
            [path for path in (ROOT / "deployments").glob("*.py") if path.name != "__init__.py"]
        ),
        "tests_lines": size("tests").lines,
        "import_circles": len(circles()),
        "imports_upward": sum(len(upward(name)) for name in LAYERS),
        **{f"files_of_{name}": len(paths) for name, paths in passed.items()},
    }
    print()
    for name, figure in figures.items():
        print(f"{name.replace('_', ' '):32} {figure:8g}")
    print(*(f"circle: {', '.join(circle)}" for circle in circles()), sep="\n")
    if options.files:
        for name, paths in passed.items():
            print(f"\n{name}:", *paths, sep="\n  ")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
