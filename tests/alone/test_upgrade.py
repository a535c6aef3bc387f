"""A model moves to weights of another dimension and back, under live traffic on a real service."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from catalog.opening import Catalog
from catalog.products import PutProduct
from core.tcp_ports import free_port
from core.types import Vector, VectorRow
from demo.service import CONFIG, DemoService
from jobs.verification.differences import Sample
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import Encoder, load_encoder
from tests.support.catalog_fixtures import new_catalog
from tests.support.checkpoints import shallow_dinov2
from tests.support.children import shown_on_failure
from tests.support.indexed import pending
from tests.support.traffic import PER_S, Traffic, image, new_image
from tests.support.waiting import wait_until

MODEL = "dinov2"
PRODUCTS = 2000
QUERIES = range(20)
OLD, NEW = 768, 1024
"""Dimensions of the two versions, those of DINOv2-base and DINOv2-large."""
JOB_S = 480.0
PERCENT = 10
"""Of the images that a verification encodes anew; the one that was damaged is among them."""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # A short path: the address of Milvus Lite is a unix socket in this folder.
    with TemporaryDirectory(prefix="vitrine-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def catalog(home: Path) -> Iterator[Catalog]:
    opened = new_catalog(home)
    opened.products.write(
        [PutProduct(f"p{number}", "", "", {}, [new_image(number)]) for number in range(PRODUCTS)]
    )
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def versions(home: Path) -> dict[int, Encoder]:
    """An encoder of each version, by its dimension, as the service and its jobs load it."""
    return {width: load(shallow_dinov2(checkpoint(home, width), width)) for width in (OLD, NEW)}


@pytest.fixture(scope="module")
def service(home: Path, catalog: Catalog, versions: dict[int, Encoder]) -> Iterator[DemoService]:
    with DemoService(home, free_port(), one_model(home)) as running, shown_on_failure(running.log_file):
        running.wait_until_ready(timeout_s=300)
        yield running


@pytest.fixture
def client(service: DemoService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.base_url, timeout=60) as opened:
        yield opened


def one_model(home: Path) -> Path:
    """The demo's configuration with the one encoder that is upgraded."""
    content = yaml.safe_load(CONFIG.read_text())
    others = {"openclip", "blip2"}
    content["applications"] = [each for each in content["applications"] if each["name"] not in others]
    for application in content["applications"]:
        settings = application["deployments"][0].get("user_config", {})
        if application["name"] == MODEL:
            application["args"]["checkpoint"] = str(checkpoint(home, OLD))
        if "models" in settings:
            settings["models"] = [MODEL]
        if "weights" in settings:
            settings["weights"] = {MODEL: 1.0}
    file = home / "serve_config.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_an_upgrade_and_a_rollback_under_traffic_lose_no_search_and_no_product(
    service: DemoService,
    client: httpx.Client,
    home: Path,
    catalog: Catalog,
    versions: dict[int, Encoder],
    capsys: pytest.CaptureFixture[str],
) -> None:
    wait_until_indexed(client)
    assert {width: each.info.dimension for width, each in versions.items()} == {OLD: 768, NEW: 1024}
    wanted = {"checkpoint": str(checkpoint(home, NEW))}
    check_plan(client, done(client, "plan", **wanted), versions)
    for verb, kind, args in (
        ("upgrade", "promote", {**wanted, "force": "the test is about the way, not the goal"}),
        ("rollback", "rollback", {}),
    ):
        old, new = (versions[each] for each in ((OLD, NEW) if verb == "upgrade" else (NEW, OLD)))
        started, others = time.monotonic(), replicas_of_others(service)
        with Traffic(service.base_url, MODEL, QUERIES, verb) as traffic:
            time.sleep(5 / PER_S)
            if kind == "promote":
                done(client, "build", **wanted)
                kill_midway(service, client, kind, **args)
            result = done(client, kind, **args)
            time.sleep(5 / PER_S)
        took_s = time.monotonic() - started
        assert (result["baseline"], result["collection"]) == (old.info.collection, new.info.collection)
        assert traffic.failed_searches == []
        assert traffic.failed_writes == []
        assert 0 < traffic.done["DELETE"] < traffic.done["PUT"]
        assert f"+checkpoint: {checkpoint(home, new.info.dimension)}" in result["diff"]
        assert others == replicas_of_others(service), "no replica but the encoder's is replaced"
        fingerprints = {check_answer(answer, versions) for answer in traffic.searches}
        assert fingerprints == {old.info.fingerprint, new.info.fingerprint}
        wait_until_indexed(client)
        check_collection(home, catalog, new)
        assert [each["fingerprint"] for each in live(client)] == [new.info.fingerprint]
        with capsys.disabled():
            print(
                f"\n{verb}: {old.info.dimension} -> {new.info.dimension} dimensions in {took_s:.0f} s, "
                f"{len(traffic.searches)} searches, 0 failed, slowest {traffic.slowest_s:.2f} s, "
                f"{traffic.done.total()} writes"
            )


def test_what_differs_is_found_and_repaired_and_earlier_versions_are_pruned(
    client: httpx.Client, home: Path, catalog: Catalog, versions: dict[int, Encoder]
) -> None:
    wait_until_indexed(client)
    wait_until_swept(catalog, versions)
    collection = versions[OLD].info.collection
    turned, lost, strange = damage(home, catalog, collection)
    seed = next(each for each in count() if turned in Sample(PERCENT, each))
    reported = done(client, "verify", percent=PERCENT, seed=seed, repair=True)
    assert {each["kind"]: [row["key"] for row in each["examples"]] for each in reported["differences"]} == {
        "changed_vector": [turned],
        "lost_vector": [lost],
        "orphan_vector": [strange],
    }
    assert reported["left"] == []
    check_collection(home, catalog, versions[OLD])
    pruned = done(client, "prune", keep=0)
    assert pruned["dropped"] == [versions[NEW].info.collection]
    known = client.get(f"/v1/models/{MODEL}/versions").json()
    assert [each["collection"] for each in known] == [collection]


def damage(home: Path, catalog: Catalog, collection: str) -> tuple[str, str, str]:
    """Turn one vector, lose another, and leave one that nobody knows; returns their keys."""
    items = [item for number in range(3) for item in catalog.ledger.items(f"p{number}")]
    store = MilvusStore(MilvusConfig(uri=f"unix:{home}/milvus.sock"))
    try:
        vector = store.fetch(collection, [items[0].key])[items[0].key]
        stranger = replace(items[2], image_id="f" * 32)
        store.upsert(collection, [VectorRow(items[0], np.roll(vector, 1)), VectorRow(stranger, vector)])
        store.delete(collection, [items[1].key])
    finally:
        store.close()
    return items[0].key, items[1].key, stranger.key


def check_plan(client: httpx.Client, plan: dict[str, Any], versions: dict[int, Encoder]) -> None:
    old, new = versions[OLD].info, versions[NEW].info
    assert (plan["baseline"], plan["baseline_dimension"]) == (old.collection, old.dimension)
    assert (plan["collection"], plan["dimension"]) == (new.collection, new.dimension)
    assert (plan["images"], plan["missing"], plan["collection_exists"]) == (PRODUCTS, PRODUCTS, False)
    assert plan["predicted_s"] > 0
    assert len(client.get(f"/v1/models/{MODEL}/versions").json()) == 1, "a plan writes nothing"


def check_answer(answer: dict[str, Any], versions: dict[int, Encoder]) -> str:
    """Every score is the cosine by the one version that the answer names."""
    (used,) = answer["models_used"]
    (encoder,) = [each for each in versions.values() if each.info.fingerprint == used["fingerprint"]]
    assert used["collection"] == encoder.info.collection
    assert not answer["degraded"], answer
    if answer["asked"] == MODEL:
        assert answer["results"][0]["product_id"] == f"p{answer['seed']}"
        for result in answer["results"]:
            if result["product_id"].startswith("p"):
                cosine = similarity(encoder, answer["seed"], int(result["product_id"][1:]))
                assert result["score"] == pytest.approx(cosine, abs=1e-3)
    fingerprint: str = used["fingerprint"]
    return fingerprint


_vectors: dict[tuple[str, int], Vector] = {}


def similarity(encoder: Encoder, *seeds: int) -> float:
    for seed in seeds:
        key = (encoder.info.fingerprint, seed)
        if key not in _vectors:
            (vector,) = encoder.encode_images([encoder.decode(image(seed))])
            assert isinstance(vector, np.ndarray)
            _vectors[key] = vector
    first, second = (_vectors[encoder.info.fingerprint, seed] for seed in seeds)
    return float(first @ second)


def check_collection(home: Path, catalog: Catalog, encoder: Encoder) -> None:
    """The collection holds exactly the images of the catalog, at their revisions."""
    collection, ledger = encoder.info.collection, catalog.ledger
    store = MilvusStore(MilvusConfig(uri=f"unix:{home}/milvus.sock"))
    try:
        # Rows of images that are gone go with the next repair.
        wait_until(
            lambda: not (ledger.missing(collection, 1) or ledger.obsolete(collection, 1)), JOB_S, pause_s=0.5
        )
        assert sorted(store.keys(collection)) == sorted(each.key for each in catalog.audit.images())
        assert store.alias_target(MODEL) == collection
    finally:
        store.close()


def checkpoint(home: Path, width: int) -> Path:
    return home / f"dinov2-{width}"


def load(directory: Path) -> Encoder:
    return load_encoder(EncoderConfig(name=MODEL, family="dinov2", checkpoint=str(directory)))


def replicas_of_others(service: DemoService) -> set[int]:
    """The processes of every deployment but the encoder's."""
    encoders = {each.pid for each in service.processes(f"ServeReplica:{MODEL}:")}
    return {each.pid for each in service.processes("ServeReplica:")} - encoders


def live(client: httpx.Client) -> Sequence[dict[str, Any]]:
    return [each for each in client.get(f"/v1/models/{MODEL}/versions").json() if each["live"]]


def wait_until_indexed(client: httpx.Client, within_s: float = 300) -> None:
    wait_until(lambda: pending(client) == 0, within_s, lambda: client.get("/v1/stats").text, pause_s=0.5)


def wait_until_swept(catalog: Catalog, versions: dict[int, Encoder]) -> None:
    """Until images that are gone are in no version any more, which the repair sees to."""
    wait_until(
        lambda: not any(catalog.ledger.obsolete(each.info.collection, 1) for each in versions.values()), JOB_S
    )


def kill_midway(service: DemoService, client: httpx.Client, kind: str, **args: Any) -> None:
    """End a job's process with SIGKILL while replicas change; whoever asks for it again finds it half done."""
    job_id = submitted(client, kind, **args)
    while not (job := client.get(f"/v1/jobs/{job_id}").json())["progress"]["stage"].startswith(
        ("waiting for the replicas", "catching up after")
    ):
        assert job["state"] in ("queued", "running"), job
        time.sleep(0.1)
    for process in service.processes(f"jobs run {job_id}"):
        process.kill()
    # It would count as dead by itself, some seconds later.
    assert client.delete(f"/v1/jobs/{job_id}").json()["state"] == "canceled"


def submitted(client: httpx.Client, kind: str, **args: Any) -> str:
    answer = client.post("/v1/jobs", json={"kind": kind, "args": {"model": MODEL, **args}})
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


def done(client: httpx.Client, kind: str, **args: Any) -> dict[str, Any]:
    job_id = submitted(client, kind, **args)
    deadline = time.monotonic() + JOB_S
    while (job := client.get(f"/v1/jobs/{job_id}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    assert job["state"] == "succeeded", job
    result: dict[str, Any] = job["result"]
    return result
