"""Production's configuration on several nodes: placement, a rolling change, scaling, lost nodes, scale to zero.

The tests are one story and run in this order: what one has to wait for comes about while another runs.
"""

import base64
import io
import os
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from demo.catalog import demo_products
from demo.run import put_products
from tests.support.catalog_fixtures import empty_database
from tests.support.code_blocks import code_blocks, run_blocks
from tests.support.indexed import pending
from tests.support.production import (
    ENCODERS,
    KEY,
    WAITING,
    ProductionCluster,
    application,
    node_kinds,
    production_cluster,
    scaling_at_once,
)
from tests.support.ray_cluster import RayNode
from tests.support.traffic import SteadyLoad
from tests.support.vector_stores import milvus_server, skip_unless_installed
from vitrine import Vitrine

LEAST_CORES = 2
pytestmark = pytest.mark.skipif(
    (os.cpu_count() or 1) < LEAST_CORES, reason=f"seven nodes want {LEAST_CORES} cores"
)

KEPT = "kept-without-milvus"
"""A product that is written while there is no Milvus."""
PRODUCTS = [replace(product, images=product.images[:1]) for product in demo_products(seed=7, count=6)]
SERVICE = {"gateway": 3, "ensemble": 2, "repair": 1}
"""What runs on nodes of the kind `service`, and how many replicas of it."""
ONE_OF_EACH = dict.fromkeys(ENCODERS, 1)
EVERYONE = (*ENCODERS, *SERVICE)
SCALED = ("openclip", "dinov2")
ROLLED = "blip2"
WITHIN_S = 420.0
"""How long anything may take on a machine that is busy."""
GOES_ON_S = 3
"""How long requests go on after each thing that has happened."""
REPAIR_S = 12.0
"""Time for a pass of the repair, which pauses for 10 s between two."""


@pytest.fixture(scope="module")
def without_milvus(postgres_server: str) -> Iterator[ProductionCluster]:
    skip_unless_installed()
    with empty_database(postgres_server) as url, production_cluster(url) as running:
        waiting = running.wait_until_all_wait()
        running.late.bring()
        running.wait_until_ready()
        assert {waiting[name] for name in WAITING} == {"DEPLOYING"}, waiting
        yield running


@pytest.fixture(scope="module")
def cluster(without_milvus: ProductionCluster) -> Iterator[ProductionCluster]:
    with milvus_server(without_milvus.late.milvus_port):
        with Vitrine(without_milvus.base_url, KEY) as shop:
            put_products(shop, PRODUCTS)
        yield without_milvus


@pytest.fixture
def client(cluster: ProductionCluster) -> Iterator[httpx.Client]:
    with cluster.client() as opened:
        yield opened


def image(seed: int, side: int = 64) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def search(part: dict[str, object], **options: object) -> dict[str, object]:
    return {"query": [part], "limit": 5, **options}


def steady_load(cluster: ProductionCluster, first: int) -> SteadyLoad:
    """Every kind of request that may be repeated, numbered from `first` on.

    No two are the same, so that none is answered by a cache.
    """

    def request(method: str, path: str, body: object = None) -> httpx.Request:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Request(method, cluster.base_url + path, json=body, headers=headers)

    def words(n: int) -> dict[str, object]:
        return search({"type": "text", "text": f"a red dress, number {first + n}"}, model="openclip")

    def many(n: int) -> dict[str, object]:
        texts = [f"a coat, number {first + n}, seen {m} times" for m in range(32)]
        return {"model": "openclip", "input": texts}

    def product(n: int) -> dict[str, object]:
        return {"title": f"new {first + n}", "images": [image(first + n, side=96)]}

    kinds: dict[str, Callable[[int], httpx.Request]] = {
        "search": lambda n: request(
            "POST", "/v1/search", search({"type": "image", "image": image(first + n)})
        ),
        "search by text": lambda n: request("POST", "/v1/search", words(n)),
        "embed": lambda n: request("POST", "/v1/embed/dinov2", {"image": image(first + n, side=256)}),
        "embed many": lambda n: request("POST", "/v1/embeddings", many(n)),
        "read": lambda n: request("GET", f"/v1/products/{PRODUCTS[n % len(PRODUCTS)].product_id}"),
        "write": lambda n: request("PUT", f"/v1/products/new-{first + n}", product(n)),
    }
    return SteadyLoad(cluster.client, kinds)


def assert_nothing_failed(load: SteadyLoad, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        slowest = max(outcome.seconds for outcome in load.outcomes())
        print(f"\n{load.counts()}, the slowest {slowest:.1f} s")
    assert load.failures() == []
    assert len(load.counts()) == 6
    assert all(count > 3 for count in load.counts().values())


def assert_on_their_kind_of_node(cluster: ProductionCluster, *names: str) -> None:
    for name in names:
        nodes = [replica.node for replica in cluster.serve.replicas(name)]
        kinds = {None if node is None else node.kind.name for node in nodes}
        assert kinds == {name if name in ENCODERS else "service"}, name


def test_late_dependencies_are_waited_for_and_then_everything_runs_also_without_milvus(
    without_milvus: ProductionCluster,
) -> None:
    serve = without_milvus.serve
    serve.wait_until(
        lambda: {name: len(ids) for name, ids in serve.ids().items()} == {**ONE_OF_EACH, **SERVICE},
        WITHIN_S,
        "every replica",
    )
    assert set(serve.statuses().values()) == {"RUNNING"}


def test_without_milvus_the_service_says_that_it_is_not_ready_and_keeps_what_is_written(
    without_milvus: ProductionCluster,
) -> None:
    with without_milvus.client() as client:
        health = client.get("/health/ready")
        assert (health.status_code, health.json()["ready"]) == (503, False)
        assert "milvus" in health.json()["problems"]
        assert "catalog" not in health.json()["problems"]
        body = {"title": "kept", "attributes": {"kept": True}, "images": [image(0)]}
        written = client.put(f"/v1/products/{KEPT}", json=body, params={"wait": False})
        assert written.status_code == 201
        refused = client.post("/v1/search", json=search({"type": "image", "image": image(1)}))
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)


def test_milvus_comes_and_the_service_serves(client: httpx.Client) -> None:
    answer = client.post("/v1/search", json=search({"type": "image", "image": image(2)}))
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 5


def test_replicas_have_the_environment_of_the_pods_and_write_nothing_where_pods_cannot(
    cluster: ProductionCluster,
) -> None:
    kinds = node_kinds()
    for name in EVERYONE:
        pod = kinds[name if name in ENCODERS else "service"]
        wanted = {key: value for key, value in pod.environment.items() if not value.startswith("/")}
        assert {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "HF_HUB_OFFLINE"} <= wanted.keys()
        for replica in cluster.serve.replicas(name):
            found = psutil.Process(replica.pid).environ()
            assert {key: found.get(key) for key in wanted} == wanted, name
            assert (found["HOME"], found["HF_HOME"]) != ("/home/vitrine", "/weights")
    assert list(cluster.working_directory.iterdir()) == []
    assert {path.name for path in cluster.late.weights.iterdir()} == set(ENCODERS)


def test_the_process_of_a_job_runs_beside_gateways_and_not_on_the_head(
    cluster: ProductionCluster, client: httpx.Client
) -> None:
    body = {"kind": "prune_files", "args": {"dry_run": True}}
    job = client.post("/v1/jobs", json=body).raise_for_status().json()

    def has_ended() -> bool:
        found = client.get(f"/v1/jobs/{job['job_id']}").raise_for_status().json()
        assert found["state"] not in ("failed", "canceled", "interrupted"), found
        return bool(found["state"] == "succeeded")

    cluster.serve.wait_until(has_ended, WITHIN_S, "the end of a job")
    assert cluster.serve.node_of_job(job["job_id"]) in {node.node_id for node in cluster.nodes["service"]}


def test_each_deployment_runs_on_its_own_kind_of_node(cluster: ProductionCluster) -> None:
    assert_on_their_kind_of_node(cluster, *EVERYONE)
    for name, count in SERVICE.items():
        nodes = [replica.node for replica in cluster.serve.replicas(name)]
        assert len(set(nodes)) == min(2, count), f"{name} runs on one node, and is lost with it"


def test_requests_may_come_in_by_every_node_that_runs_something(cluster: ProductionCluster) -> None:
    nodes = {node for name in EVERYONE for each in cluster.serve.replicas(name) if (node := each.node)}
    assert {node.kind.name for node in nodes} == {*ENCODERS, "service"}
    for node in nodes:
        what = f"an answer at {node.base_url}, of the kind {node.kind.name}"
        cluster.serve.wait_until(partial(is_alive, node), WITHIN_S, what)


def is_alive(node: RayNode) -> bool:
    try:
        return httpx.get(f"{node.base_url}/health/live", timeout=10).is_success
    except httpx.TransportError:
        return False


def test_a_change_rolls_only_what_changed(
    cluster: ProductionCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    serve, before = cluster.serve, cluster.serve.ids()
    changed = deepcopy(cluster.config)
    application(changed, ROLLED)["args"]["max_batch_size"] = 16
    with steady_load(cluster, first=0) as load:
        cluster.change(changed)
        rolled_s = serve.wait_until(
            lambda: (
                bool(new := serve.ids()[ROLLED]) and not new & before[ROLLED] and serve.is_running(ROLLED)
            ),
            WITHIN_S,
            f"a new {ROLLED}",
        )
        time.sleep(GOES_ON_S)
    after = serve.ids()
    assert {name for name in EVERYONE if before[name] != after[name]} == {ROLLED}
    assert len(after[ROLLED]) == 1
    assert_on_their_kind_of_node(cluster, *EVERYONE)
    assert_nothing_failed(load, capsys)
    with capsys.disabled():
        print(f"rolled in {rolled_s:.1f} s")


def test_load_brings_more_replicas(cluster: ProductionCluster, capsys: pytest.CaptureFixture[str]) -> None:
    serve, before = cluster.serve, cluster.serve.ids()
    assert {name: len(before[name]) for name in ENCODERS} == dict.fromkeys(ENCODERS, 1)
    with steady_load(cluster, first=500_000) as load:
        cluster.change(scaling_at_once(cluster.config))
        scaled_s = serve.wait_until(
            lambda: all(len(serve.ids()[name]) == 2 for name in SCALED), WITHIN_S, "two of each"
        )
        after = serve.ids()
        time.sleep(GOES_ON_S)
    assert all(before[name] <= after[name] for name in EVERYONE), (
        "other numbers of scaling replace no replica"
    )
    assert len({replica.node for replica in serve.replicas("openclip")}) == 2
    assert_on_their_kind_of_node(cluster, *EVERYONE)
    assert_nothing_failed(load, capsys)
    with capsys.disabled():
        print(f"scaled out in {scaled_s:.1f} s")


def test_nodes_that_are_lost_cost_no_request(
    cluster: ProductionCluster, client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = cluster.serve
    if len(cluster.nodes["openclip"]) == 1:
        cluster.add("openclip")  # in place of the one that a first try of this test has lost
    nodes = [cluster.nodes[kind][-1] for kind in ("openclip", "service")]
    # Under load from the beginning: without, the second openclip would go again.
    with steady_load(cluster, first=1_000_000) as load:
        serve.wait_until(lambda: len(serve.ids()["openclip"]) == 2, WITHIN_S, "a second openclip")
        lost = {
            name: {each.replica_id for each in serve.replicas(name) if each.node in nodes}
            for name in EVERYONE
        }
        assert [len(lost[name]) for name in ("openclip", "ensemble")] == [1, 1]
        assert len(lost["gateway"]) in (1, 2), "a node holds two of three at most"
        time.sleep(GOES_ON_S)
        for node in nodes:
            cluster.lose(node)
            time.sleep(GOES_ON_S)
        cluster.add("service")
        noticed_s = serve.wait_until(
            lambda: not any(lost[name] & running for name, running in serve.ids().items()),
            WITHIN_S,
            "that they are lost",
        )
        time.sleep(GOES_ON_S)
    assert_nothing_failed(load, capsys)
    with capsys.disabled():
        print(f"Serve noticed the loss {noticed_s:.1f} s later")
    written = [
        outcome.body["product"]["product_id"] for outcome in load.outcomes() if outcome.name == "write"
    ]
    assert all(client.get(f"/v1/products/{product_id}").status_code == 200 for product_id in written)


def test_what_was_lost_comes_back(cluster: ProductionCluster, capsys: pytest.CaptureFixture[str]) -> None:
    serve = cluster.serve
    back_s = serve.wait_until(
        lambda: all(len(serve.ids()[name]) == count for name, count in SERVICE.items()),
        WITHIN_S,
        "all that was lost",
    )
    # What was lost comes back where there is room at once, which may be the node that is left.
    assert_on_their_kind_of_node(cluster, *SERVICE)
    # Also starts encoders at zero: a new repair asks each once for its version.
    cluster.wait_until_ready()
    with capsys.disabled():
        print(f"\nwhole again {back_s:.1f} s later")


def test_an_encoder_scales_to_zero_and_starts_for_a_search(
    cluster: ProductionCluster, client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = cluster.serve
    serve.wait_until(lambda: serve.is_at_zero("blip2"), WITHIN_S, "blip2 at zero")
    time.sleep(REPAIR_S)
    assert serve.is_at_zero("blip2"), "the repair, which has nothing to do, has started it"
    body = search({"type": "image", "image": image(2_000_000)})
    refused = client.post(
        "/v1/search", json=body | {"model": "blip2"}, headers={"X-Request-Timeout-Seconds": "1"}
    )
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    meanwhile = [client.post("/v1/search", json=body).json() for _ in range(2)]
    for answer in meanwhile:
        assert answer["degraded"]
        assert answer["skipped"].keys() == {"blip2"}
        assert len(answer["results"]) == 5
    started = time.monotonic()
    while (started_up := client.post("/v1/search", json=body | {"model": "blip2"})).status_code != 200:
        # On a busy machine it may take longer than a request may, and then the caller learns so.
        assert (started_up.status_code, started_up.headers["retry-after"]) == (503, "1")
        assert time.monotonic() - started < WITHIN_S
    with capsys.disabled():
        print(f"\nanswered {time.monotonic() - started:.1f} s after it was first asked")
    serve.wait_until(
        lambda: not client.post("/v1/search", json=body).json()["degraded"], WITHIN_S, "an ensemble of all"
    )


def test_what_is_not_needed_any_more_goes_and_every_index_is_whole(
    cluster: ProductionCluster, client: httpx.Client
) -> None:
    serve = cluster.serve
    serve.wait_until(lambda: len(serve.ids()["dinov2"]) == 1, WITHIN_S, "one dinov2 again")
    serve.wait_until(lambda: pending(client) == 0, WITHIN_S, "every image in every index")
    found = [
        client.post(
            "/v1/search", json=search({"type": "image", "image": image(3)}, model=name, filter={"kept": True})
        )
        for name in ENCODERS
    ]
    assert [[each["product_id"] for each in answer.json()["results"]] for answer in found] == [[KEPT]] * 3
    serve.wait_until(lambda: client.get("/health/ready").is_success, WITHIN_S, "everything ready")


def test_the_last_commands_to_a_search_print_what_the_page_says(
    cluster: ProductionCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", KEY)
    ready, found = (block.text for block in code_blocks("k8s/README.md")[-2:])
    # Without the port forward, for the API is on this machine.
    answer, printed = run_blocks(
        [ready.partition("sleep 2; ")[2], found], cluster.base_url, tmp_path, WITHIN_S
    )
    assert answer.startswith('{"ready":true')
    rows = printed[printed.index("score") :].splitlines()[1:]
    assert rows[0].split()[:2] == ["1", "my-dress"]
