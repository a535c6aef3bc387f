"""The Milvus resource keeps all that it stores in the object store, in a namespace of its own."""

import re
from typing import Any

from pymilvus import MilvusClient

from tests.support.manifests import ROOT, of_kind


def spec() -> Any:
    (milvus,) = of_kind("milvus", "Milvus")
    return milvus["spec"]


def test_it_names_its_bucket_and_asks_for_it_by_tls() -> None:
    store, where = spec()["config"]["minio"], spec()["dependencies"]["storage"]
    assert store["bucketName"]
    assert store["region"]
    assert store["useSSL"] is where["endpoint"].endswith(":443") is True
    assert where["external"] is True
    assert where["secretRef"]


def test_the_page_makes_the_secret_that_holds_the_keys_of_the_bucket() -> None:
    secret, (milvus,) = spec()["dependencies"]["storage"]["secretRef"], of_kind("milvus", "Milvus")
    page = (ROOT / "docs" / "operations.md").read_text()
    command = f"kubectl --namespace {milvus['metadata']['namespace']} create secret generic {secret} "
    (keys,) = re.findall(rf"{command}\\\n +(.+)", page)
    # The names that the operator of Milvus reads.
    assert re.findall(r"--from-literal=(\w+)=", keys) == ["accesskey", "secretkey"]


def test_its_log_of_writes_is_in_the_object_store_too() -> None:
    assert spec()["dependencies"]["msgStreamType"] == "woodpecker"
    assert spec()["config"]["woodpecker"]["storage"]["type"] == "minio"


def test_its_namespace_is_made_with_it_and_is_the_one_that_policies_name() -> None:
    (milvus,), (namespace,) = of_kind("milvus", "Milvus"), of_kind("milvus", "Namespace")
    assert milvus["metadata"]["namespace"] == namespace["metadata"]["name"]
    (stores,) = (
        p for p in of_kind("overlays/gpu", "NetworkPolicy") if p["metadata"]["name"] == "vitrine-stores"
    )
    allowed = str(stores["spec"]["egress"][0])
    assert f"'kubernetes.io/metadata.name': '{namespace['metadata']['name']}'" in allowed


def test_the_page_changes_the_password_that_every_milvus_begins_with(monkeypatch: Any) -> None:
    assert spec()["config"]["common"]["security"]["authorizationEnabled"] is True
    page = (ROOT / "docs" / "operations.md").read_text()
    (program,) = re.findall(r'python -c "([^"]+update_password[^"]+)"', page)
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        MilvusClient, "__init__", lambda self, *args, **options: calls.append((args, options))
    )
    monkeypatch.setattr(MilvusClient, "__del__", lambda self: None, raising=False)
    monkeypatch.setattr(MilvusClient, "update_password", lambda self, *args: calls.append(args))
    exec(program)
    assert calls[0][1] == {"token": "root:Milvus"}
    assert calls[1][:2] == ("root", "Milvus")
