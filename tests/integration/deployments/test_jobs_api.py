"""The jobs API over a real catalog, with a cluster that only remembers its calls."""

from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from catalog.imports import RowError
from catalog.opening import Catalog
from core.errors import NotFound, Unavailable
from core.jobs import Progress
from deployments.services.jobs import BulkJobs
from tests.support.catalog_fixtures import encoder

pytestmark = pytest.mark.anyio
BUILD = {"kind": "build", "args": {"model": "first"}}
REMOTE = {"kind": "remote", "url": "https://x.test"}
FOLDER = {"kind": "folder", "path": "/srv/shop"}


@dataclass
class Cluster:
    away: bool = False
    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)

    def start(self, job_id: str) -> None:
        self._answer()
        self.started.append(job_id)

    def stop(self, job_id: str) -> None:
        self._answer()
        self.stopped.append(job_id)

    def logs(self, job_id: str, lines: int) -> str:
        self._answer()
        if job_id not in self.written:
            raise NotFound(f"there are no logs of job {job_id}")
        return "".join(self.written[job_id].splitlines(keepends=True)[-lines:])

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("Ray does not take jobs now")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def client(client: httpx.AsyncClient, app: FastAPI, cluster: Cluster) -> httpx.AsyncClient:
    services = app.state.services
    jobs = BulkJobs(services.catalog, cluster, 5, models=("first", "second"), folders=("/srv/shop",))
    app.state.services = replace(services, jobs=jobs)
    return client


async def submitted(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/v1/jobs", json=BUILD | changes)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


async def test_a_submitted_job_is_started_and_shows_its_progress(
    client: httpx.AsyncClient, catalog: Catalog, cluster: Cluster
) -> None:
    job = await submitted(client)
    assert (job["kind"], job["args"], job["state"]) == ("build", {"model": "first"}, "queued")
    assert cluster.started == [job["job_id"]]
    catalog.jobs.begin(job["job_id"])
    catalog.jobs.beat(job["job_id"], Progress("indexing", 10, 4, 1, 2.5, 2.0))
    shown = (await client.get(f"/v1/jobs/{job['job_id']}")).json()
    assert shown["state"] == "running"
    assert shown["progress"] == {
        "stage": "indexing", "total": 10, "done": 4, "failed": 1, "images_per_s": 2.5, "eta_s": 2.0
    }  # fmt: skip
    assert (await client.get("/v1/jobs")).json() == [shown]


async def test_a_second_build_is_refused_with_the_id_of_the_first(
    client: httpx.AsyncClient, cluster: Cluster
) -> None:
    first = await submitted(client)
    answer = await client.post("/v1/jobs", json=BUILD)
    assert answer.status_code == 409
    assert first["job_id"] in answer.json()["error"]["message"]
    assert cluster.started == [first["job_id"]]


async def test_a_job_is_cancelled_once(client: httpx.AsyncClient, cluster: Cluster) -> None:
    job = await submitted(client)
    answer = await client.delete(f"/v1/jobs/{job['job_id']}")
    assert (answer.status_code, answer.json()["state"]) == (200, "canceled")
    assert cluster.stopped == [job["job_id"]]
    assert (await client.delete(f"/v1/jobs/{job['job_id']}")).status_code == 409
    await submitted(client)


async def test_a_cluster_that_takes_no_jobs_is_a_503_and_leaves_the_job_failed(
    client: httpx.AsyncClient, cluster: Cluster
) -> None:
    cluster.away = True
    answer = await client.post("/v1/jobs", json=BUILD)
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "unavailable")
    (job,) = (await client.get("/v1/jobs")).json()
    assert (job["state"], job["error"]) == ("failed", "Ray does not take jobs now")
    cluster.away = False
    await submitted(client)


async def test_a_job_is_cancelled_though_the_cluster_is_away(
    client: httpx.AsyncClient, cluster: Cluster
) -> None:
    job = await submitted(client)
    cluster.away = True
    assert (await client.delete(f"/v1/jobs/{job['job_id']}")).json()["state"] == "canceled"


async def test_logs_are_the_last_lines(client: httpx.AsyncClient, cluster: Cluster) -> None:
    job = await submitted(client)
    assert (await client.get(f"/v1/jobs/{job['job_id']}/logs")).status_code == 404
    cluster.written[job["job_id"]] = "one\ntwo\nthree\n"
    answer = await client.get(f"/v1/jobs/{job['job_id']}/logs", params={"lines": 2})
    assert (answer.text, answer.headers["content-type"]) == ("two\nthree\n", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"kind": "dance"}, "kind"),
        ({"kind": "build"}, "args.model"),
        ({"kind": "build", "args": {"model": "first", "speed": 3}}, "args.speed"),
        ({"kind": "build", "args": {"model": "first", "checkpoint": "${HOME}"}}, "args"),
        ({"kind": "build", "args": {"model": "nul\0"}}, "args"),
        ({"kind": "sample", "args": {"model": "first", "percent": 0}}, "args.percent"),
        ({"kind": "sample", "args": {"model": "first", "percent": "5"}}, "args.percent"),
        ({"kind": "sample", "args": {"model": "first", "percent": True}}, "args.percent"),
        ({"kind": "evaluate", "args": {"sample": "10"}}, "args.sample"),
        ({"kind": "evaluate", "args": {"seed": 1.5}}, "args.seed"),
        ({"kind": "verify", "args": {"repair": "true"}}, "args.repair"),
        ({"kind": "prune", "args": {"model": "first", "keep": True}}, "args.keep"),
        *(
            ({"kind": "import", "args": args}, f"args{param}")
            for args, param in (
                ({}, ".source"),
                ({"source": {"kind": "ftp"}}, ".source"),
                ({"source": FOLDER | {"recursive": True}}, ".source.folder.recursive"),
                ({"source": {"kind": "folder", "path": "${HOME}"}}, ""),
                ({"source": REMOTE | {"token_env": "HOME"}}, ".source.remote.token_env"),
                ({"source": REMOTE | {"page_size": "9"}}, ".source.remote.page_size"),
                ({"source": FOLDER, "max_delete_percent": 101}, ".max_delete_percent"),
                ({"source": {"kind": "folder", "path": "/etc"}}, ".source.path"),
                ({"source": {"kind": "folder", "path": "/srv/shop/../etc"}}, ".source.path"),
                ({"source": {"kind": "manifest", "path": "/srv/shops.csv"}}, ".source.path"),
            )
        ),
        ({"kind": "build", "arguments": {}}, "arguments"),
        ({}, "kind"),
    ],
)
async def test_mistakes_are_named(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    answer = await client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text
    assert "alue error" not in answer.text


@pytest.mark.parametrize(
    ("kind", "args", "status", "param", "named"),
    [
        ("build", {"model": "third"}, 404, "args.model", "first, second"),
        ("sample", {"model": "ensemble"}, 404, "args.model", "first, second"),
        ("plan", {"model": "First"}, 404, "args.model", "first, second"),
        ("promote", {"model": ""}, 404, "args.model", "first, second"),
        ("prune", {"model": "third"}, 404, "args.model", "first, second"),
        ("verify", {"model": "third"}, 404, "args.model", "first, second"),
        ("rollback", {"model": "third"}, 404, "args.model", "first, second"),
        (
            "rollback",
            {"model": "first", "fingerprint": "0" * 12},
            404,
            "args.fingerprint",
            "versions: 0123456789ab",
        ),
        (
            "rollback",
            {"model": "second", "fingerprint": "0123456789ab"},
            404,
            "args.fingerprint",
            "versions: none",
        ),
        (
            "evaluate",
            {"model": "first", "compare": ["second", "third"]},
            404,
            "args.compare[1]",
            "first, second",
        ),
        ("evaluate", {"model": "third", "pooling": "mean"}, 404, "args.model", "first, second"),
        (
            "evaluate",
            {"ensembles": [{"weights": {"first:candidate": 1, "third:candidate": 1}}]},
            404,
            "args.ensembles[0].weights",
            "first, second",
        ),
        ("evaluate", {"queries": "/etc/passwd"}, 422, "args.queries", "/srv/shop"),
        ("evaluate", {"queries": "s3://bucket/srv/shop"}, 422, "args.queries", "/srv/shop"),
        ("import", {"source": {"kind": "folder", "path": "/srv"}}, 422, "args.source.path", "/srv/shop"),
    ],
)
async def test_a_job_that_names_what_is_unknown_is_refused_before_it_is_registered(
    client: httpx.AsyncClient,
    catalog: Catalog,
    cluster: Cluster,
    kind: str,
    args: dict[str, Any],
    status: int,
    param: str,
    named: str,
) -> None:
    catalog.ledger.register(encoder("first"))
    answer = await client.post("/v1/jobs", json={"kind": kind, "args": args})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    assert named in answer.json()["error"]["message"]
    assert (await client.get("/v1/jobs")).json() == []
    assert cluster.started == []


async def test_a_job_that_names_what_is_known_is_taken(client: httpx.AsyncClient, catalog: Catalog) -> None:
    catalog.ledger.register(encoder("first"))
    ensembles = [{"name": "both", "weights": {"first:candidate": 1, "second": 1}}]
    candidate = {"model": "first", "pooling": "mean"}
    for kind, args in (
        ("rollback", {"model": "first", "fingerprint": "0123456789ab"}),
        ("verify", {}),
        ("evaluate", {"ensembles": ensembles, "queries": "/srv/shop/labels.csv", **candidate}),
        ("import", {"source": {"kind": "manifest", "path": "/srv/shop/shop.csv"}}),
    ):
        answer = await client.post("/v1/jobs", json={"kind": kind, "args": args})
        assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("job_id", ["none", "n%00l", "a" * 300])
async def test_a_job_that_does_not_exist_is_a_404(client: httpx.AsyncClient, job_id: str) -> None:
    for call in (client.get(f"/v1/jobs/{job_id}"), client.delete(f"/v1/jobs/{job_id}")):
        assert (await call).status_code == 404
    assert (await client.get(f"/v1/jobs/{job_id}/logs")).status_code == 404


async def test_the_report_of_an_evaluation_is_a_page_that_loads_nothing(
    client: httpx.AsyncClient, catalog: Catalog
) -> None:
    job = catalog.jobs.begin(catalog.jobs.create("evaluate", {}).job_id)
    early = await client.get(f"/v1/jobs/{job.job_id}/report")
    assert early.status_code == 404
    files = {"report.html": catalog.reports.put(b"<!doctype html><p>figures")}
    catalog.jobs.finish(job.job_id, "succeeded", Progress(), {"files": files})
    answer = await client.get(f"/v1/jobs/{job.job_id}/report")
    assert (answer.status_code, answer.text) == (200, "<!doctype html><p>figures")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert (await client.get("/v1/jobs/none/report")).status_code == 404


async def test_an_import_is_taken_and_an_equal_one_refused(client: httpx.AsyncClient) -> None:
    fields = {"product_id": "sku", "images": ["front", "back"]}
    source = {"kind": "manifest", "path": "/srv/shop/shop.csv", "fields": fields}
    body = {"kind": "import", "args": {"source": source, "delete_missing": True}}
    answer = await client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["args"] == {"source": source, "delete_missing": True}
    again = await client.post("/v1/jobs", json=body)
    assert again.status_code == 409
    assert answer.json()["job_id"] in again.json()["error"]["message"]


async def test_broken_rows_are_listed_page_by_page(client: httpx.AsyncClient, catalog: Catalog) -> None:
    job = (await client.post("/v1/jobs", json={"kind": "import", "args": {"source": FOLDER}})).json()[
        "job_id"
    ]
    assert (await client.get(f"/v1/jobs/{job}/errors")).status_code == 404
    state = catalog.imports.begin("shop", "plan", job)
    broken = [RowError(row, None if row == 2 else f"p{row}", "cut off") for row in range(1, 6)]
    catalog.imports.save(state, {}, broken)
    first = (await client.get(f"/v1/jobs/{job}/errors?limit=2")).json()
    assert [each["row"] for each in first] == [1, 2]
    assert first[1] == {"row": 2, "product_id": None, "error": "cut off"}
    rest = (await client.get(f"/v1/jobs/{job}/errors?after=2")).json()
    assert [each["row"] for each in rest] == [3, 4, 5]
    assert (await client.get("/v1/jobs/import-none/errors")).status_code == 404
