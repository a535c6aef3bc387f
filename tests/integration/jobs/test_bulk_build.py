"""A bulk build on Ray Data and a real Milvus Lite: killed anywhere, it goes on where it was.

For ten kills: `VITRINE_BUILD_KILLS=10 .venv/bin/python -m pytest tests/integration/jobs/test_bulk_build.py`.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from catalog.jobs import SqlJobs
from catalog.opening import Catalog, open_catalog
from catalog.products import PutProduct
from core.config import BulkConfig
from core.jobs import Job, Progress
from jobs.build.stages import CALLS_AT_ONCE
from milvus.bulk_import import MilvusImports
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from tests.support.bulk_driver import BULK, FILE_IMAGES, HELD, LEASE_S, STAGED, files_in, settings
from tests.support.children import Child
from tests.support.image_files import image
from tests.support.vector_stores import LiteProcess, wait_for

ROOT = Path(__file__).parents[3]
PRODUCTS, IMAGES_A_PRODUCT = 150, 10
IMAGES = PRODUCTS * IMAGES_A_PRODUCT
KILLS = int(os.environ.get("VITRINE_BUILD_KILLS", "4"))
_BATCH_S = 0.05
_CLUSTER = (
    "import sys; from jobs.runner.cluster import start_ray; c = start_ray(num_cpus=2, include_dashboard=False); "
    "print('at', c.address_info['gcs_address'], flush=True); sys.stdin.read()"
)
_ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass
class Bench:
    """A catalog with images, a Milvus Lite and a Ray on which builds run in processes of their own."""

    folder: Path
    catalog: Catalog
    store: MilvusStore
    uri: str
    address: str
    bulk: BulkConfig = BULK

    def build(self) -> Child:
        command = [sys.executable, "-m", "tests.support.bulk_driver", self.folder, self.uri, self.address]
        command.append(self.bulk.model_dump_json())
        return Child("build", command, cwd=ROOT, env={**os.environ, **_ENVIRONMENT})

    @property
    def collection(self) -> str:
        return self.catalog.ledger.versions()[0].collection

    @property
    def indexed(self) -> int:
        versions = self.catalog.ledger.versions()
        return self.catalog.ledger.counts(versions[0].collection).indexed if versions else 0

    @property
    def encoded(self) -> int:
        return (self.folder / "encoded").stat().st_size

    def latest_job(self) -> Job:
        return SqlJobs(self.catalog.engine).page(1)[0]

    def wait_for_progress(self, job_id: str) -> Progress:
        deadline = time.monotonic() + 60
        while not (progress := SqlJobs(self.catalog.engine).get(job_id).progress).done:
            assert time.monotonic() < deadline, progress
            time.sleep(0.01)
        return progress

    def wait_until_indexed(self, count: int, process: Child) -> None:
        deadline = time.monotonic() + 240
        while self.indexed < count and process.poll() is None:
            assert time.monotonic() < deadline, f"{self.indexed} of {count} after four minutes"
            time.sleep(0.05)

    def assert_complete(self) -> None:
        expected = {
            f"{image.image_id}:{image.revision}"
            for product in self.catalog.products.page(1000)
            for image in product.images
        }
        keys = list(self.store.keys(self.collection))
        assert len(keys) == len(set(keys))
        assert set(keys) == expected
        counts = self.catalog.ledger.counts(self.collection)
        assert (counts.indexed, counts.failed, counts.missing) == (len(expected), 0, 0)
        assert self.catalog.ledger.obsolete(self.collection, 1) == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    # What an actor that is killed leaves in its scratch folder goes with this one, whose name must be short:
    # Ray puts sockets below it.
    with (
        tempfile.TemporaryDirectory(prefix="vitrine-", ignore_cleanup_errors=True) as scratch,
        Child(
            "ray",
            [sys.executable, "-c", _CLUSTER],
            cwd=ROOT,
            env={**os.environ, **_ENVIRONMENT, "TMPDIR": scratch},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        address = next((line.split()[1] for line in process.stdout if line.startswith("at ")), None)
        assert address is not None, "Ray did not start"
        yield address
        process.stdin.close()
        process.stdout.read()


@pytest.fixture
def bench(cluster: str, lite_process: LiteProcess) -> Iterator[Bench]:
    lite_process.start()
    with a_bench(cluster, lite_process.uri) as made:
        yield made


@contextmanager
def a_bench(cluster: str, uri: str) -> Iterator[Bench]:
    store = MilvusStore(MilvusConfig(uri=uri))
    wait_for(store, 60)
    with tempfile.TemporaryDirectory(prefix="vitrine-bulk-") as name:
        catalog = open_catalog(settings(Path(name), uri).catalog)
        images = [image((number * 20, 255 - number * 20, 128)) for number in range(IMAGES_A_PRODUCT)]
        catalog.products.write(
            [PutProduct(f"p{number}", "", "", {"number": number}, images) for number in range(PRODUCTS)]
        )
        yield Bench(Path(name), catalog, store, uri, cluster)
        store.close()
        catalog.close()


def test_a_build_killed_at_many_points_leaves_no_gap_no_duplicate_and_little_done_twice(
    bench: Bench,
) -> None:
    rng = random.Random(5)
    for _ in range(KILLS):
        process = bench.build()
        bench.wait_until_indexed(bench.indexed + rng.randrange(1, IMAGES // (KILLS + 1)), process)
        assert process.poll() is None, "the build was over before it could be killed"
        time.sleep(rng.random() * _BATCH_S)
        process.kill()
        process.wait()
        print(f"killed at {bench.indexed} indexed, {bench.encoded} encoded")
    assert bench.latest_job().state != "succeeded"
    last = bench.build()
    assert last.wait(timeout=240) == 0
    bench.assert_complete()
    assert bench.latest_job().state == "succeeded"
    print(f"{bench.encoded} encoded for {IMAGES} images in {KILLS + 1} runs")
    assert IMAGES <= bench.encoded <= 1.2 * IMAGES


def test_a_build_reports_progress_keeps_a_second_off_by_its_id_and_stops_when_canceled(
    bench: Bench,
) -> None:
    first = bench.build()
    bench.wait_until_indexed(100, first)
    job = bench.latest_job()
    progress = bench.wait_for_progress(job.job_id)
    held = bench.folder / HELD
    held.touch()
    second = bench.build()
    assert (progress.stage, progress.total, progress.failed) == ("indexing", IMAGES, 0)
    assert 0 < progress.done < IMAGES
    assert progress.images_per_s is not None
    assert progress.eta_s == pytest.approx((IMAGES - progress.done) / progress.images_per_s, rel=1e-6)
    assert second.wait(timeout=240) != 0
    assert job.job_id in second.output()
    SqlJobs(bench.catalog.engine).cancel(job.job_id)
    held.unlink()
    assert first.wait(timeout=240) != 0
    assert bench.latest_job().state == "canceled"
    assert bench.indexed < IMAGES


def test_a_build_by_files_that_is_killed_goes_on_with_its_files_and_takes_each_in_once(
    cluster: str, server_uri: str
) -> None:
    with a_bench(cluster, server_uri) as made:
        staged = made.folder / "import"
        bench = replace(made, bulk=files_in(staged))
        first = bench.build()
        deadline = time.monotonic() + 240
        while len(list(staged.rglob("*.parquet"))) < 2 and first.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert first.poll() is None, "the build was over before it could be killed"
        first.kill()
        first.wait()
        assert bench.indexed == 0, "what is in no collection yet is in no ledger"
        waiting = next(staged.rglob("*.parquet"))
        imports = MilvusImports(MilvusConfig(uri=server_uri))
        for _ in range(2):
            # As a build does that is killed behind it, and is killed there again.
            imports.begin_import(bench.collection, str(waiting))
        last = bench.build()
        assert last.wait(timeout=300) == 0
        bench.assert_complete()
        assert list(staged.rglob("*.parquet")) == []
        assert imports.count_rows(bench.collection, list(imports.keys(bench.collection))) == IMAGES
        assert bench.encoded <= IMAGES + 2 * FILE_IMAGES * CALLS_AT_ONCE
        imports.drop_collection(bench.collection)
        imports.close()


def test_a_build_outlives_the_owner_of_milvus_and_one_of_its_actors(
    bench: Bench, lite_process: LiteProcess
) -> None:
    process = bench.build()
    bench.wait_until_indexed(200, process)
    lite_process.kill()
    time.sleep(LEASE_S)
    lite_process.start()
    bench.wait_until_indexed(600, process)
    kill_actor("ShardIndexer")
    assert process.wait(timeout=240) == 0
    bench.assert_complete()


def test_a_build_that_decodes_apart_is_killed_outlives_an_actor_of_each_stage_and_loses_nothing(
    bench: Bench,
) -> None:
    bench = replace(bench, bulk=STAGED)
    for want in (200, 500):
        process = bench.build()
        bench.wait_until_indexed(want, process)
        assert process.poll() is None, "the build was over before it could be killed"
        process.kill()
        process.wait()
        print(f"killed at {bench.indexed} indexed, {bench.encoded} encoded")
    last = bench.build()
    for number, work in enumerate(("DecodeStage", "EncodeStage", "WriteStage")):
        bench.wait_until_indexed(bench.indexed + 50 + number, last)
        kill_actor(work)
        print(f"killed {work} at {bench.indexed} indexed, {bench.encoded} encoded")
    assert last.wait(timeout=240) == 0
    bench.assert_complete()
    assert bench.latest_job().state == "succeeded"
    # No bound: the model runs ahead of the writes, and what waits for them is encoded again.
    print(f"{bench.encoded} encoded for {IMAGES} images")


def test_no_raylet_waits_for_ports_of_its_agents(cluster: str) -> None:
    """It would abort after 15 s, as on a machine on which another Ray starts."""
    (raylet,) = [each for each in psutil.Process().children(recursive=True) if each.name() == "raylet"]
    given = dict(option.split("=", 1) for option in raylet.cmdline() if "port=" in option.partition(" ")[0])
    ports = [
        int(given[f"--{name}"])
        for name in (
            "metrics-agent-port",
            "metrics_export_port",
            "runtime_env_agent_port",
            "dashboard_agent_listen_port",
        )
    ]
    assert all(ports)
    assert len(set(ports)) == len(ports)


def kill_actor(work: str) -> None:
    """Kill a process that does this work; the cluster is this test's own."""
    # Others that were killed may be zombies, which have no command line.
    mine = [each for each in psutil.process_iter(["cmdline"]) if owned(each)]
    titles = [(each, " ".join(each.info["cmdline"] or ())) for each in mine]
    (first, *_) = [each for each, title in titles if "MapWorker" in title and work in title]
    first.kill()


def owned(process: psutil.Process) -> bool:
    try:
        return any(parent.pid == os.getpid() for parent in process.parents())
    except psutil.Error:
        return False
