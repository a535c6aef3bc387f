"""Jobs in SQL: what is asked for, who works on what, and how far it is.

A job's process renews its lease with every sign of life. One that dies, however suddenly, stops doing so:
its lease runs out, the job shows as interrupted, and what it had claimed is free again.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, insert

from catalog import job_rows
from catalog.clock import utc_now
from catalog.config import KEEP_JOBS_DAYS
from catalog.tables import JobRow
from catalog.transactions import reading, writing
from core.errors import Conflict
from core.jobs import Job, JobState, Progress

START_S = 180.0
"""How long a job may take from its creation to its first sign of life: a cluster may have to grow."""
LEASE_S = 20.0
"""How long a sign of life counts."""


class SqlJobs:
    """The register of jobs; every method may raise Unavailable.

    What has ended longer than `keep_days` ago goes when the next job is created.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime] = utc_now,
        lease_s: float = LEASE_S,
        keep_days: float = KEEP_JOBS_DAYS,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self.lease_s = lease_s
        self._keep = timedelta(days=keep_days)

    def create(self, kind: str, args: Mapping[str, Any]) -> Job:
        """Register a job as queued.

        Raises:
            Conflict: an equal job is queued or running; the message holds its id.
        """
        now = self._clock()
        job_id = f"{kind}-{uuid.uuid4().hex[:12]}"
        with writing(self._engine) as connection:
            job_rows.take_turns(connection)
            alike = job_rows.alike(connection, kind, args, now)
            if alike is not None:
                raise Conflict(f"job {alike.job_id} is already doing this")
            job_rows.forget_before(connection, now - self._keep, now)
            connection.execute(
                insert(JobRow).values(
                    id=job_id,
                    kind=kind,
                    args=dict(args),
                    state="queued",
                    progress=asdict(Progress("waiting for a process")),
                    created_at=now,
                    heartbeat_at=now,
                    expires_at=now + timedelta(seconds=START_S),
                )
            )
        return self.get(job_id)

    def begin(self, job_id: str) -> Job:
        """Take a queued or interrupted job up.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended or another process works on it.
        """
        with writing(self._engine) as connection:
            job_rows.take_turns(connection)
            job = job_rows.read(connection, job_id, self._clock())
            if job.state not in ("queued", "interrupted"):
                raise Conflict(f"job {job_id} is {job.state}")
            self._change(connection, job_id, state="running", started_at=job.started_at or self._clock())
        return self.get(job_id)

    def claim(self, job_id: str, name: str) -> None:
        """Keep every other job off what `name` stands for, until this one ends or dies.

        Raises:
            Conflict: another job has claimed it; the message holds its id.
        """
        with writing(self._engine) as connection:
            job_rows.take_turns(connection)
            holder = job_rows.holder(connection, name, self._clock())
            if holder is not None and holder.job_id != job_id:
                raise Conflict(f"job {holder.job_id} works on {name}")
            self._change(connection, job_id, claim=name)

    def lock(self, job_id: str, name: str) -> bool:
        """Lock what `name` stands for until `unlock`; False while another living job holds the lock.

        Beside its claim, a job holds one lock at a time.

        Raises:
            Conflict: this job has ended.
        """
        with writing(self._engine) as connection:
            job_rows.take_turns(connection)
            if not job_rows.lock(connection, job_id, name, self._clock()):
                return False
            if not self._change(connection, job_id, lock=name):
                raise Conflict(f"job {job_id} has ended")
        return True

    def keep_lock(self, job_id: str, name: str) -> bool:
        """Renew the lease of a job that holds a lock; False when another has taken it for dead, and the lock."""
        with writing(self._engine) as connection:
            job_rows.take_turns(connection)
            return job_rows.holds(connection, job_id, name) and self._change(connection, job_id)

    def unlock(self, job_id: str) -> None:
        """Give the lock back that a job holds, if it holds one."""
        with writing(self._engine) as connection:
            self._change(connection, job_id, lock=None)

    def beat(self, job_id: str, progress: Progress) -> bool:
        """Give a sign of life; False when the job was cancelled, or lost its claim to another meanwhile."""
        with writing(self._engine) as connection:
            job_rows.take_turns(connection)
            claim = job_rows.read(connection, job_id, self._clock()).claim
            holder = None if claim is None else job_rows.holder(connection, claim, self._clock())
            if holder is not None and holder.job_id != job_id:
                return False
            return self._change(connection, job_id, progress=asdict(progress))

    def finish(
        self,
        job_id: str,
        state: JobState,
        progress: Progress,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Record the end of a job, unless it has ended before (as by a cancellation)."""
        values = {"state": state, "result": result, "error": error, "finished_at": self._clock()}
        with writing(self._engine) as connection:
            self._change(connection, job_id, progress=asdict(progress), **values)

    def cancel(self, job_id: str) -> Job:
        """Mark a job as cancelled, which its process notices at its next sign of life.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended already.
        """
        with writing(self._engine) as connection:
            job = job_rows.read(connection, job_id, self._clock())
            if not self._change(connection, job_id, state="cancelled", finished_at=self._clock()):
                raise Conflict(f"job {job_id} has already ended: {job.state}")
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """Read one job; NotFound when there is none of that id."""
        with reading(self._engine) as connection:
            return job_rows.read(connection, job_id, self._clock())

    def alike(self, kind: str, args: Mapping[str, Any]) -> Job | None:
        """Find the living job that keeps an equal one from being created."""
        with reading(self._engine) as connection:
            return job_rows.alike(connection, kind, args, self._clock())

    def holder(self, name: str) -> Job | None:
        """Find the living job that has claimed this."""
        with reading(self._engine) as connection:
            return job_rows.holder(connection, name, self._clock())

    def report_files(self, job_id: str) -> set[str] | None:
        """Read which files, by sha256, results of jobs name; None while another job lives, and may add to them."""
        with reading(self._engine) as connection:
            if job_rows.others_live(connection, job_id, self._clock()):
                return None
            return job_rows.report_files(connection)

    def page(self, limit: int) -> list[Job]:
        """Read the latest jobs, newest first."""
        rows = job_rows.JOBS.order_by(JobRow.created_at.desc(), JobRow.id).limit(limit)
        with reading(self._engine) as connection:
            return [job_rows.job_of(row, self._clock()) for row in connection.execute(rows)]

    def _change(self, connection: Connection, job_id: str, **values: Any) -> bool:
        return job_rows.change(connection, job_id, self._clock(), self.lease_s, **values)
