"""What every database of the catalog must do with jobs."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from catalog.jobs import LEASE_S, START_S, SqlJobs
from catalog.opening import Catalog
from core.errors import Conflict, NotFound
from core.jobs import Progress
from tests.support.catalog_fixtures import Clock

ARGS = {"model": "dinov2"}


def begun(jobs: SqlJobs, number: int) -> list[str]:
    """The ids of so many jobs that have begun."""
    return [jobs.begin(jobs.create("promote", {"model": str(n)}).job_id).job_id for n in range(number)]


class JobsContract:
    """Run on what the fixture `database_url` names."""

    @pytest.fixture
    def jobs(self, catalog: Catalog, clock: Clock) -> SqlJobs:
        return SqlJobs(catalog.engine, clock)

    def test_a_job_goes_from_queued_to_its_end(self, jobs: SqlJobs, clock: Clock) -> None:
        job = jobs.create("build", ARGS)
        assert (job.state, job.args, job.started_at, job.finished_at) == ("queued", ARGS, None, None)
        clock.move(1)
        assert jobs.begin(job.job_id).started_at == clock.now
        progress = Progress("indexing", total=10, done=4, failed=1, images_per_s=2.5, eta_s=2.0)
        assert jobs.beat(job.job_id, progress)
        assert jobs.get(job.job_id).progress == progress
        jobs.finish(job.job_id, "succeeded", progress, {"images": 5})
        ended = jobs.get(job.job_id)
        assert (ended.state, ended.result, ended.finished_at) == ("succeeded", {"images": 5}, clock.now)
        assert not jobs.beat(job.job_id, Progress("late"))
        assert jobs.get(job.job_id) == ended

    def test_an_equal_job_is_refused_with_the_id_of_the_first(self, jobs: SqlJobs) -> None:
        first = jobs.create("build", ARGS)
        with pytest.raises(Conflict, match=first.job_id):
            jobs.create("build", ARGS)
        jobs.create("build", {"model": "openclip"})
        jobs.create("sample", ARGS)
        jobs.cancel(first.job_id)
        assert jobs.create("build", ARGS).job_id != first.job_id

    def test_of_many_equal_jobs_at_once_one_is_created(self, jobs: SqlJobs) -> None:
        def create(_number: int) -> bool:
            try:
                jobs.create("build", ARGS)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(create, range(8))) == 1

    def test_a_claim_keeps_others_off_until_its_job_ends(self, jobs: SqlJobs) -> None:
        first, second = jobs.create("build", ARGS), jobs.create("sample", ARGS)
        for job in (first, second):
            jobs.begin(job.job_id)
        jobs.claim(first.job_id, "collection a")
        jobs.claim(first.job_id, "collection a")
        with pytest.raises(Conflict, match=first.job_id):
            jobs.claim(second.job_id, "collection a")
        jobs.claim(second.job_id, "collection b")
        jobs.finish(first.job_id, "failed", Progress(), error="no room")
        jobs.claim(second.job_id, "collection a")
        assert jobs.get(first.job_id).error == "no room"

    def test_a_job_without_a_sign_of_life_is_interrupted_and_its_claim_is_free(
        self, jobs: SqlJobs, clock: Clock
    ) -> None:
        dead = jobs.create("build", ARGS)
        jobs.begin(dead.job_id)
        jobs.claim(dead.job_id, "collection a")
        clock.move(LEASE_S - 1)
        assert jobs.beat(dead.job_id, Progress())
        clock.move(LEASE_S - 1)
        assert jobs.get(dead.job_id).state == "running"
        clock.move(1)
        assert jobs.get(dead.job_id).state == "interrupted"
        successor = jobs.create("build", ARGS)
        jobs.begin(successor.job_id)
        jobs.claim(successor.job_id, "collection a")
        assert jobs.holder("collection a") == jobs.get(successor.job_id)

    def test_an_interrupted_job_is_taken_up_again_and_a_living_one_is_not(
        self, jobs: SqlJobs, clock: Clock
    ) -> None:
        job = jobs.create("build", ARGS)
        began = jobs.begin(job.job_id).started_at
        with pytest.raises(Conflict, match="running"):
            jobs.begin(job.job_id)
        clock.move(LEASE_S)
        again = jobs.begin(job.job_id)
        assert (again.state, again.started_at) == ("running", began)

    def test_a_job_that_no_process_takes_up_is_interrupted(self, jobs: SqlJobs, clock: Clock) -> None:
        job = jobs.create("build", ARGS)
        clock.move(START_S - 1)
        assert jobs.get(job.job_id).state == "queued"
        clock.move(1)
        assert jobs.get(job.job_id).state == "interrupted"

    def test_a_canceled_job_learns_it_and_stays_canceled(self, jobs: SqlJobs) -> None:
        job = jobs.create("build", ARGS)
        jobs.begin(job.job_id)
        assert jobs.cancel(job.job_id).state == "canceled"
        assert not jobs.beat(job.job_id, Progress())
        jobs.finish(job.job_id, "succeeded", Progress())
        assert jobs.get(job.job_id).state == "canceled"
        with pytest.raises(Conflict, match="canceled"):
            jobs.cancel(job.job_id)
        with pytest.raises(Conflict, match="canceled"):
            jobs.begin(job.job_id)

    def test_one_living_job_at_a_time_holds_a_lock_beside_its_claim(
        self, jobs: SqlJobs, clock: Clock
    ) -> None:
        first, second = begun(jobs, 2)
        jobs.claim(first, "the upgrade of a")
        assert jobs.lock(first, "config")
        assert jobs.lock(first, "config")
        assert not jobs.lock(second, "config")
        assert jobs.lock(second, "something else")
        assert jobs.keep_lock(first, "config")
        jobs.unlock(first)
        assert not jobs.keep_lock(first, "config")
        assert jobs.lock(second, "config")
        assert jobs.get(first).claim == "the upgrade of a"
        jobs.finish(second, "failed", Progress("dead"))
        assert jobs.lock(first, "config")
        with pytest.raises(Conflict):
            jobs.lock(second, "another")

    def test_a_lock_outlives_its_holder_by_the_lease_and_is_gone_when_it_comes_back(
        self, jobs: SqlJobs, clock: Clock
    ) -> None:
        first, second = begun(jobs, 2)
        assert jobs.lock(first, "config")
        clock.move(LEASE_S - 1)
        assert not jobs.lock(second, "config")
        jobs.beat(second, Progress("waiting"))
        clock.move(1)
        assert jobs.lock(second, "config")
        jobs.unlock(second)
        assert jobs.beat(first, Progress("back again"))
        assert not jobs.keep_lock(first, "config")

    def test_of_many_jobs_at_once_one_gets_the_lock(self, jobs: SqlJobs) -> None:
        made = begun(jobs, 8)
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda job_id: jobs.lock(job_id, "config"), made)) == 1

    def test_jobs_are_listed_newest_first(self, jobs: SqlJobs, clock: Clock) -> None:
        ids = []
        for number in range(3):
            ids.append(jobs.create("build", {"model": f"m{number}"}).job_id)
            clock.move(1)
        assert [job.job_id for job in jobs.page(2)] == [ids[2], ids[1]]

    def test_what_ended_long_ago_goes_when_another_job_begins(
        self, catalog: Catalog, jobs: SqlJobs, clock: Clock
    ) -> None:
        kept = SqlJobs(catalog.engine, clock, keep_days=2)
        old, dead, living = (kept.create("build", {"model": f"m{number}"}).job_id for number in range(3))
        kept.begin(living)
        kept.finish(old, "succeeded", Progress())
        clock.move(3600)
        late = kept.create("build", ARGS).job_id
        kept.finish(late, "failed", Progress(), error="no room")
        clock.move(2 * 86400 - 3600 + 1)
        kept.beat(living, Progress())
        assert len(kept.page(10)) == 4, "nothing goes by itself"
        new = kept.create("build", ARGS).job_id
        assert {job.job_id for job in kept.page(10)} == {late, living, new}
        with pytest.raises(NotFound):
            kept.get(dead)

    def test_a_job_that_does_not_exist_is_not_found(self, jobs: SqlJobs) -> None:
        for call in (jobs.get, jobs.begin, jobs.cancel):
            with pytest.raises(NotFound, match="no job 'none'"):
                call("none")
        with pytest.raises(NotFound):
            jobs.get("nul\0")
