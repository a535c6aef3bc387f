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

    @pytest.fixture(autouse=True)
    def _opened(self, catalog: Catalog, clock: Clock) -> None:
        self.catalog, self.clock, self.jobs = catalog, clock, SqlJobs(catalog.engine, clock)

    def test_a_job_goes_from_queued_to_its_end(self) -> None:
        job = self.jobs.create("build", ARGS)
        assert (job.state, job.args, job.started_at, job.finished_at) == ("queued", ARGS, None, None)
        self.clock.move(1)
        assert self.jobs.begin(job.job_id).started_at == self.clock.now
        progress = Progress("indexing", total=10, done=4, failed=1, images_per_s=2.5, eta_s=2.0)
        assert self.jobs.beat(job.job_id, progress)
        assert self.jobs.get(job.job_id).progress == progress
        self.jobs.finish(job.job_id, "succeeded", progress, {"images": 5})
        ended = self.jobs.get(job.job_id)
        assert (ended.state, ended.result, ended.finished_at) == ("succeeded", {"images": 5}, self.clock.now)
        assert not self.jobs.beat(job.job_id, Progress("late"))
        assert self.jobs.get(job.job_id) == ended

    def test_an_equal_job_is_refused_with_the_id_of_the_first(self) -> None:
        first = self.jobs.create("build", ARGS)
        with pytest.raises(Conflict, match=first.job_id):
            self.jobs.create("build", ARGS)
        self.jobs.create("build", {"model": "openclip"})
        self.jobs.create("sample", ARGS)
        self.jobs.cancel(first.job_id)
        assert self.jobs.create("build", ARGS).job_id != first.job_id

    def test_of_many_equal_jobs_at_once_one_is_created(self) -> None:
        def create(_number: int) -> bool:
            try:
                self.jobs.create("build", ARGS)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(create, range(8))) == 1

    def test_a_claim_keeps_others_off_until_its_job_ends(self) -> None:
        first, second = self.jobs.create("build", ARGS), self.jobs.create("sample", ARGS)
        for job in (first, second):
            self.jobs.begin(job.job_id)
        self.jobs.claim(first.job_id, "collection a")
        self.jobs.claim(first.job_id, "collection a")
        with pytest.raises(Conflict, match=first.job_id):
            self.jobs.claim(second.job_id, "collection a")
        self.jobs.claim(second.job_id, "collection b")
        self.jobs.finish(first.job_id, "failed", Progress(), error="no room")
        self.jobs.claim(second.job_id, "collection a")
        assert self.jobs.get(first.job_id).error == "no room"

    def test_a_job_without_a_sign_of_life_is_interrupted_and_its_claim_is_free(self) -> None:
        dead = self.jobs.create("build", ARGS)
        self.jobs.begin(dead.job_id)
        self.jobs.claim(dead.job_id, "collection a")
        self.clock.move(LEASE_S - 1)
        assert self.jobs.beat(dead.job_id, Progress())
        self.clock.move(LEASE_S - 1)
        assert self.jobs.get(dead.job_id).state == "running"
        self.clock.move(1)
        assert self.jobs.get(dead.job_id).state == "interrupted"
        successor = self.jobs.create("build", ARGS)
        self.jobs.begin(successor.job_id)
        self.jobs.claim(successor.job_id, "collection a")
        assert self.jobs.holder("collection a") == self.jobs.get(successor.job_id)

    def test_an_interrupted_job_is_taken_up_again_and_a_living_one_is_not(self) -> None:
        job = self.jobs.create("build", ARGS)
        began = self.jobs.begin(job.job_id).started_at
        with pytest.raises(Conflict, match="running"):
            self.jobs.begin(job.job_id)
        self.clock.move(LEASE_S)
        again = self.jobs.begin(job.job_id)
        assert (again.state, again.started_at) == ("running", began)

    def test_a_job_that_no_process_takes_up_is_interrupted(self) -> None:
        job = self.jobs.create("build", ARGS)
        self.clock.move(START_S - 1)
        assert self.jobs.get(job.job_id).state == "queued"
        self.clock.move(1)
        assert self.jobs.get(job.job_id).state == "interrupted"

    def test_a_canceled_job_learns_it_and_stays_canceled(self) -> None:
        job = self.jobs.create("build", ARGS)
        self.jobs.begin(job.job_id)
        assert self.jobs.cancel(job.job_id).state == "canceled"
        assert not self.jobs.beat(job.job_id, Progress())
        self.jobs.finish(job.job_id, "succeeded", Progress())
        assert self.jobs.get(job.job_id).state == "canceled"
        with pytest.raises(Conflict, match="canceled"):
            self.jobs.cancel(job.job_id)
        with pytest.raises(Conflict, match="canceled"):
            self.jobs.begin(job.job_id)

    def test_one_living_job_at_a_time_holds_a_lock_beside_its_claim(self) -> None:
        first, second = begun(self.jobs, 2)
        self.jobs.claim(first, "the upgrade of a")
        assert self.jobs.lock(first, "config")
        assert self.jobs.lock(first, "config")
        assert not self.jobs.lock(second, "config")
        assert self.jobs.lock(second, "something else")
        assert self.jobs.keep_lock(first, "config")
        self.jobs.unlock(first)
        assert not self.jobs.keep_lock(first, "config")
        assert self.jobs.lock(second, "config")
        assert self.jobs.get(first).claim == "the upgrade of a"
        self.jobs.finish(second, "failed", Progress("dead"))
        assert self.jobs.lock(first, "config")
        with pytest.raises(Conflict):
            self.jobs.lock(second, "another")

    def test_a_lock_outlives_its_holder_by_the_lease_and_is_gone_when_it_comes_back(self) -> None:
        first, second = begun(self.jobs, 2)
        assert self.jobs.lock(first, "config")
        self.clock.move(LEASE_S - 1)
        assert not self.jobs.lock(second, "config")
        self.jobs.beat(second, Progress("waiting"))
        self.clock.move(1)
        assert self.jobs.lock(second, "config")
        self.jobs.unlock(second)
        assert self.jobs.beat(first, Progress("back again"))
        assert not self.jobs.keep_lock(first, "config")

    def test_of_many_jobs_at_once_one_gets_the_lock(self) -> None:
        made = begun(self.jobs, 8)
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda job_id: self.jobs.lock(job_id, "config"), made)) == 1

    def test_jobs_are_listed_newest_first(self) -> None:
        ids = []
        for number in range(3):
            ids.append(self.jobs.create("build", {"model": f"m{number}"}).job_id)
            self.clock.move(1)
        assert [job.job_id for job in self.jobs.page(2)] == [ids[2], ids[1]]

    def test_what_ended_long_ago_goes_when_another_job_begins(self) -> None:
        kept = SqlJobs(self.catalog.engine, self.clock, keep_days=2)
        old, dead, living = (kept.create("build", {"model": f"m{number}"}).job_id for number in range(3))
        kept.begin(living)
        kept.finish(old, "succeeded", Progress())
        self.clock.move(3600)
        late = kept.create("build", ARGS).job_id
        kept.finish(late, "failed", Progress(), error="no room")
        self.clock.move(2 * 86400 - 3600 + 1)
        kept.beat(living, Progress())
        assert len(kept.page(10)) == 4, "nothing goes by itself"
        new = kept.create("build", ARGS).job_id
        assert {job.job_id for job in kept.page(10)} == {late, living, new}
        with pytest.raises(NotFound):
            kept.get(dead)

    def test_a_job_that_does_not_exist_is_not_found(self) -> None:
        for call in (self.jobs.get, self.jobs.begin, self.jobs.cancel):
            with pytest.raises(NotFound, match="no job 'none'"):
                call("none")
        with pytest.raises(NotFound):
            self.jobs.get("nul\0")
