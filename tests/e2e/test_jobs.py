"""Bulk work through the running service: submitted over HTTP, done by Ray, told by the catalog."""

import time
from typing import Any

import httpx

CANDIDATE = {"model": "dinov2", "pooling": "mean"}


def ended(client: httpx.Client, job_id: str, within_s: float = 120) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while True:
        job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
        if job["state"] not in ("queued", "running"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.5)


def submit(client: httpx.Client, kind: str, **args: Any) -> httpx.Response:
    return client.post("/v1/jobs", json={"kind": kind, "args": args})


def test_a_candidate_is_built_beside_the_live_version(client: httpx.Client) -> None:
    answer = submit(client, "build", **CANDIDATE)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]
    assert answer.headers["location"] == f"/v1/jobs/{job_id}"
    second = submit(client, "build", **CANDIDATE)
    assert second.status_code == 409
    assert job_id in second.json()["error"]["message"]
    job = ended(client, job_id)
    assert job["state"] == "succeeded", job
    assert job["result"]["remaining"] == 0
    assert job["progress"]["images_per_s"] > 0
    versions = client.get("/v1/models/dinov2/versions").json()
    (built,) = [each for each in versions if each["collection"] == job["result"]["collection"]]
    assert not built["live"]
    assert built["counts"]["indexed"] == built["counts"]["pictures"] > 0
    assert job_id in client.get(f"/v1/jobs/{job_id}/logs").text


def test_a_cancelled_job_stays_cancelled(client: httpx.Client) -> None:
    job_id = submit(client, "sample", model="dinov2", pooling="cls+mean").json()["job_id"]
    assert client.delete(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
    assert ended(client, job_id)["state"] == "cancelled"
    assert job_id in [job["job_id"] for job in client.get("/v1/jobs").json()]


def test_a_job_that_cannot_be_done_fails_and_says_why(client: httpx.Client) -> None:
    job = ended(client, submit(client, "build", model="nothing").json()["job_id"])
    assert job["state"] == "failed"
    assert job["error"].startswith("there is no model 'nothing'; models: blip2, dinov2, openclip")
