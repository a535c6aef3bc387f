"""What pymilvus and Milvus Lite keep private is used in one module each, and only of the version that was tried."""

import inspect
from importlib.metadata import version
from pathlib import Path

import pytest
from milvus_lite.db import MilvusLite
from milvus_lite.engine.collection import Collection
from milvus_lite.search.filter import eval as filter_evaluation
from milvus_lite.storage.wal import WAL
from pymilvus import MilvusClient
from pymilvus.client.grpc_handler import GrpcHandler
from pymilvus.decorators import retry_on_rpc_failure

from tests.support.project import declared

ROOT = Path(__file__).parents[3]
TRIED = {"pymilvus": "3.0.2", "milvus-lite": "3.2.2"}
KEEPERS = {"pymilvus": "milvus/connection.py", "milvus-lite": "milvus/lite.py"}
WORDS = {
    "pymilvus": ["_get_connection", "_generate_call_context", "_on_rpc_error", "pymilvus.client"],
    "milvus-lite": ["_save_aliases", "_trigger_flush", "_sync_mode", "milvus_lite."],
}


@pytest.mark.parametrize("package", TRIED)
def test_the_installed_version_is_the_one_that_was_tried(package: str) -> None:
    assert version(package) == TRIED[package], (
        f"{package} {version(package)} is installed, and {KEEPERS[package]} uses private attributes that were "
        f"tried with {TRIED[package]}: run tests/integration/milvus, then name the version here, in "
        "pyproject.toml and in docs/architecture.md"
    )


@pytest.mark.parametrize("package", TRIED)
def test_no_later_minor_version_is_allowed(package: str) -> None:
    bounds = declared("server")[package]
    major, minor, _ = TRIED[package].split(".")
    assert TRIED[package] in bounds.specifier
    assert f"{major}.{int(minor) + 1}.0" not in bounds.specifier
    assert f"{package}=={TRIED[package]}" in (ROOT / "constraints.txt").read_text().split()


@pytest.mark.parametrize("package", TRIED)
def test_one_module_uses_what_is_private(package: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for layer in ("core", "models", "catalog", "milvus", "deployments", "jobs", "vitrine")
        for path in (ROOT / layer).rglob("*.py")
        if any(word in path.read_text() for word in WORDS[package])
    }
    assert users == {KEEPERS[package]}


def test_what_is_private_is_there() -> None:
    for owner, names in {
        MilvusClient: ["_get_connection", "_generate_call_context"],
        GrpcHandler: ["do_bulk_insert", "get_bulk_insert_state", "list_bulk_insert_tasks"],
        MilvusLite: ["_save_aliases"],
        Collection: ["_apply", "_trigger_flush"],
        filter_evaluation: ["evaluate_python"],
    }.items():
        assert [name for name in names if not hasattr(owner, name)] == [], owner
    for source, words in {
        retry_on_rpc_failure: ["args[0]._on_rpc_error(e)"],
        MilvusLite: ["self._collections"],
        Collection: ["self._wal =", "self._manifest =", "_manifest.save("],
        WAL: ["self._sync_mode"],
    }.items():
        assert [word for word in words if word not in inspect.getsource(source)] == [], source
