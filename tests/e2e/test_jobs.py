"""Bulk work through the running service: submitted over HTTP, done by Ray, reported by the catalog."""

import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from demo.catalog import demo_products
from demo.service import WEIGHTS, DemoService
from tests.support.indexed import pending
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The demo's DINOv2 gone blind: every image becomes the same vector."""
    folder = tmp_path_factory.mktemp("weights") / "blind"
    shutil.copytree(WEIGHTS / "dinov2", folder)
    weights = load_file(folder / "model.safetensors")
    weights["layernorm.weight"] = torch.zeros_like(weights["layernorm.weight"])
    weights["layernorm.bias"] = torch.ones_like(weights["layernorm.bias"])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return {"model": "dinov2", "checkpoint": str(folder)}


def ended(client: httpx.Client, job_id: str, within_s: float = 300) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while True:
        job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
        if job["state"] not in ("queued", "running"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.1)


def submit(client: httpx.Client, kind: str, **args: Any) -> httpx.Response:
    return client.post("/v1/jobs", json={"kind": kind, "args": args})


def done(client: httpx.Client, kind: str, **args: Any) -> dict[str, Any]:
    answer = submit(client, kind, **args)
    assert answer.status_code == 202, answer.text
    job = ended(client, answer.json()["job_id"])
    assert job["state"] == "succeeded", job
    return job


def live(client: httpx.Client) -> list[str]:
    versions = client.get("/v1/models/dinov2/versions").json()
    return [each["collection"] for each in versions if each["live"]]


def test_a_sample_predicts_the_build_that_completes_it_beside_the_live_version(
    client: httpx.Client, candidate: dict[str, str]
) -> None:
    sample = done(client, "sample", percent=50, **candidate)["result"]
    assert 0 < sample["indexed"] < sample["images"]
    assert sample["remaining"] == sample["images"] - sample["indexed"]
    assert sample["images_per_s"] > 0
    assert sample["predicted_s"] > sample["predicted_remaining_s"] > 0
    answer = submit(client, "build", **candidate)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]
    assert answer.headers["location"] == f"/v1/jobs/{job_id}"
    second = submit(client, "build", **candidate)
    assert second.status_code == 409
    assert job_id in second.json()["error"]["message"]
    job = ended(client, job_id)
    assert job["state"] == "succeeded", job
    assert (job["result"]["indexed"], job["result"]["remaining"]) == (sample["remaining"], 0)
    assert job["progress"]["images_per_s"] > 0
    versions = client.get("/v1/models/dinov2/versions").json()
    (built,) = [each for each in versions if each["collection"] == job["result"]["collection"]]
    assert not built["live"]
    assert built["counts"]["indexed"] == built["counts"]["images"] > 0
    assert job_id in client.get(f"/v1/jobs/{job_id}/logs").text


def test_a_worse_candidate_is_found_out_by_an_evaluation_and_refused_by_the_gate(
    client: httpx.Client, candidate: dict[str, str]
) -> None:
    before = live(client)
    job = done(client, "evaluate", sample=60, **candidate)
    decision = job["result"]["quality_gate"]
    assert not decision["passed"]
    assert decision["reason"].startswith("refused: ndcg@10 goes from ")
    page = client.get(f"/v1/jobs/{job['job_id']}/report")
    assert page.headers["content-type"].startswith("text/html")
    assert page.text.count('<img src="data:image/') > 2, "the queries on which the models differ most"
    assert decision["reason"] in client.get(f"/v1/jobs/{job['job_id']}/logs").text
    refused = ended(client, submit(client, "promote", **candidate).json()["job_id"])
    assert refused["state"] == "failed"
    assert "the quality gate refuses" in refused["error"]
    assert "refused: ndcg@10 goes from " in refused["error"]
    assert not refused["result"]["quality_gate"]["passed"]
    assert live(client) == before
    assert client.get("/health/ready").status_code == 200


def test_an_import_takes_a_folder_over_once_and_its_products_are_found(
    client: httpx.Client, deliveries: Path
) -> None:
    images = {f"delivered-{product.product_id}": product.images for product in demo_products(99, 3)}
    for name, files in images.items():
        (deliveries / name).mkdir()
        for number, data in enumerate(files):
            (deliveries / name / f"{number}.jpg").write_bytes(data)
    count = sum(len(files) for files in images.values())
    source = {"kind": "folder", "path": str(deliveries)}
    first = done(client, "import", source=source)["result"]
    assert (first["created"], first["failed"], first["images_read"]) == (3, 0, count)
    again = done(client, "import", source=source)["result"]
    assert (again["unchanged"], again["created"], again["updated"]) == (3, 0, 0)
    assert (again["images_read"], again["images_unchanged"]) == (0, count)
    wait_until(lambda: pending(client) == 0, 300, "the repair has not encoded what was imported")
    for name in images:
        query = [{"type": "product_id", "product_id": name}]
        assert client.post("/v1/search", json={"model": "dinov2", "query": query}).status_code == 200
        assert client.delete(f"/v1/products/{name}").status_code == 204


def test_a_cancelled_job_ends_and_stays_canceled(service: DemoService, client: httpx.Client) -> None:
    job_id = submit(client, "sample", model="dinov2", pooling="cls+mean").json()["job_id"]
    wait_until(lambda: client.get(f"/v1/jobs/{job_id}").json()["state"] == "running", 60)
    assert client.delete(f"/v1/jobs/{job_id}").json()["state"] == "canceled"
    wait_until(lambda: not service.processes(f"jobs run {job_id}"), 60, "its process goes on")
    assert ended(client, job_id)["state"] == "canceled"
    assert job_id in [job["job_id"] for job in client.get("/v1/jobs").json()]


def test_a_job_that_cannot_be_done_fails_and_says_why(client: httpx.Client) -> None:
    job = ended(client, submit(client, "build", model="dinov2", precision="fp7").json()["job_id"])
    assert job["state"] == "failed"
    assert job["error"].startswith("this candidate cannot be: precision")
