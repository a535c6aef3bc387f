"""A process's hold on a job."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.jobs import SqlJobs
from core.errors import Conflict, InvalidInput, Unavailable
from jobs.runner.context import JobRun, take_up
from tests.support.catalog_fixtures import new_catalog

ARGS = {"model": "fake"}
LEASE_S = 1.5
PATIENT_LEASE_S = 3.0
"""For those who are to keep it: a sixth of it is the time in which a busy machine must find a moment."""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[SqlJobs]:
    catalog = new_catalog(tmp_path)
    yield SqlJobs(catalog.engine, lease_s=LEASE_S)
    catalog.close()


def test_a_run_ends_as_succeeded_with_its_result_and_progress(jobs: SqlJobs) -> None:
    with take_up(jobs, "build", ARGS) as run:
        run.report(stage="indexing", total=10, done=10)
        run.result = {"indexed": 10}
    job = jobs.get(run.job.job_id)
    assert (job.state, job.result, job.progress.done) == ("succeeded", {"indexed": 10}, 10)


@pytest.mark.parametrize(
    ("error", "message"), [(InvalidInput("no such model"), "no such model"), (KeyError("x"), "KeyError")]
)
def test_a_run_that_raises_is_a_failed_job(jobs: SqlJobs, error: Exception, message: str) -> None:
    with pytest.raises(type(error)), take_up(jobs, "build", ARGS) as run:
        raise error
    job = jobs.get(run.job.job_id)
    assert (job.state, job.error, job.result) == ("failed", message, None)


def test_a_run_that_fails_keeps_what_it_has_found(jobs: SqlJobs) -> None:
    run = take_up(jobs, "build", ARGS)
    run.result = {"quality_gate": {"passed": False}}
    with pytest.raises(Conflict), run:
        raise Conflict("refused")
    job = jobs.get(run.job.job_id)
    assert (job.state, job.error, job.result) == ("failed", "refused", {"quality_gate": {"passed": False}})


@pytest.mark.slow
def test_a_long_run_keeps_its_lease(jobs: SqlJobs) -> None:
    jobs.lease_s = PATIENT_LEASE_S
    with take_up(jobs, "build", ARGS) as run:
        time.sleep(PATIENT_LEASE_S + 0.5)
        assert jobs.get(run.job.job_id).state == "running"


@pytest.mark.slow
def test_a_living_equal_job_is_refused_with_its_id_before_its_lease_is_out(jobs: SqlJobs) -> None:
    jobs.lease_s = 2 * PATIENT_LEASE_S
    with take_up(jobs, "build", ARGS) as first:
        began = time.monotonic()
        with pytest.raises(Conflict, match=first.job.job_id):
            take_up(jobs, "build", ARGS)
        assert time.monotonic() - began < jobs.lease_s


@pytest.mark.slow
def test_a_dead_job_is_succeeded_once_its_lease_is_out(jobs: SqlJobs) -> None:
    dead = jobs.create("build", ARGS)
    jobs.begin(dead.job_id)
    jobs.claim(dead.job_id, "collection a")
    with take_up(jobs, "build", ARGS) as run:
        run.claim("collection a")
    assert jobs.get(dead.job_id).state == "interrupted"
    assert jobs.get(run.job.job_id).state == "succeeded"


def test_a_cancelled_run_is_reported(jobs: SqlJobs) -> None:
    def work(run: JobRun) -> None:
        jobs.cancel(run.job.job_id)
        run.pause(5)

    with pytest.raises(Conflict, match="canceled"), take_up(jobs, "build", ARGS) as run:
        work(run)
    assert jobs.get(run.job.job_id).state == "canceled"


def test_a_run_that_can_give_no_more_signs_of_life_stops(
    jobs: SqlJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beat(*_: object) -> bool:
        raise KeyError("progress")

    monkeypatch.setattr(jobs, "beat", beat)
    run = take_up(jobs, "build", ARGS)
    with pytest.raises(Conflict), run:
        run.pause(5)


@pytest.mark.slow
def test_a_run_whose_claim_went_to_another_stops(jobs: SqlJobs) -> None:
    late = jobs.create("build", ARGS)
    jobs.begin(late.job_id)
    jobs.claim(late.job_id, "collection a")
    time.sleep(LEASE_S + 0.1)
    jobs.lease_s = PATIENT_LEASE_S
    with take_up(jobs, "sample", ARGS) as other:
        other.claim("collection a")
        with pytest.raises(Conflict), JobRun(jobs, late) as overtaken:
            overtaken.pause(5)


def test_a_lock_that_cannot_be_given_back_fails_nothing_that_was_done_under_it(
    jobs: SqlJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlock(_job_id: str) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(jobs, "unlock", unlock)
    with take_up(jobs, "promote", ARGS) as run, run.locked("the configuration") as keep:
        keep()
    assert jobs.get(run.job.job_id).state == "succeeded"
    # The end of the job has freed it.
    with take_up(jobs, "promote", ARGS) as other:
        assert jobs.lock(other.job.job_id, "the configuration")


def test_a_lock_that_ends_with_a_cancellation_is_not_said_to_be_taken(jobs: SqlJobs) -> None:
    def work(run: JobRun) -> None:
        with run.locked("the configuration") as keep:
            jobs.cancel(run.job.job_id)
            keep()

    with pytest.raises(Conflict, match="was cancel"), take_up(jobs, "promote", ARGS) as run:
        work(run)
