"""Jobs in SQL: requests, claims, locks and progress.

A job's process renews its lease with every heartbeat. When it dies, its lease runs out: the job counts as
interrupted, and its claim is free again.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, delete, insert, select, update

from catalog.database import KEEP_JOBS_DAYS, SqlPart, reading, take_turns, utc_now, writing
from catalog.tables import JobRow
from core.errors import Conflict, NotFound
from core.jobs import Job, JobState, Progress

_JOBS = select(*JobRow.__table__.columns)
_ROWS_AT_ONCE = 1_000
_UNFINISHED = ("queued", "running")
_JOB_ID = re.compile(r"[a-z0-9_-]{1,64}")
_JOBS_LOCK = (0x7669, 0x6A6F)
"""PostgreSQL's advisory lock under which jobs are created and claims are made."""
START_S = 180.0
"""Longest time from a job's creation to its first heartbeat, in seconds: a cluster may have to grow."""
LEASE_S = 20.0
"""Time for which a heartbeat counts, in seconds."""


def _read_job(connection: Connection, job_id: str, now: datetime) -> Job:
    """Read one job; NotFound when there is none of that id."""
    row = None
    if _JOB_ID.fullmatch(job_id):
        row = connection.execute(_JOBS.where(JobRow.id == job_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id!r:.80}")
    return _job_of(row, now)


def _find_alike(connection: Connection, kind: str, args: Mapping[str, Any], now: datetime) -> Job | None:
    """Find a living job that does the same."""
    rows = connection.execute(_JOBS.where(JobRow.kind == kind, _alive(now)))
    return next((_job_of(row, now) for row in rows if row.args == dict(args)), None)


def _find_holder(connection: Connection, name: str, now: datetime) -> Job | None:
    """Find the living job that has claimed this."""
    row = connection.execute(_JOBS.where(JobRow.claim == name, _alive(now))).first()
    return None if row is None else _job_of(row, now)


def read_report_files(connection: Connection) -> set[str]:
    """Read the sha256 of all files that results of jobs name."""
    results = connection.scalars(select(JobRow.result), execution_options={"yield_per": _ROWS_AT_ONCE})
    return {sha256 for result in results for sha256 in ((result or {}).get("files") or {}).values()}


def _job_of(row: Row[Any], now: datetime) -> Job:
    """Convert a row to a job; without a lease it is interrupted."""
    values = {field.name: row._mapping[field.name] for field in fields(Job) if field.name != "job_id"}
    if row.state in _UNFINISHED and row.expires_at <= now:
        values["state"] = "interrupted"
    return Job(job_id=row.id, **values | {"progress": Progress(**row.progress)})


def _alive(now: datetime) -> ColumnElement[bool]:
    return and_(JobRow.state.in_(_UNFINISHED), JobRow.expires_at > now)


class SqlJobs(SqlPart):
    """Register of jobs.

    Jobs that ended more than `keep_days` ago are deleted when the next job is created.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime] = utc_now,
        lease_s: float = LEASE_S,
        keep_days: float = KEEP_JOBS_DAYS,
    ) -> None:
        super().__init__(engine, clock)
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
            take_turns(connection, _JOBS_LOCK)
            alike = _find_alike(connection, kind, args, now)
            if alike is not None:
                raise Conflict(f"job {alike.job_id} is already doing this")
            connection.execute(delete(JobRow).where(JobRow.heartbeat_at < now - self._keep, ~_alive(now)))
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
        """Begin a queued or interrupted job.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended, or another process works on it.
        """
        with writing(self._engine) as connection:
            take_turns(connection, _JOBS_LOCK)
            job = _read_job(connection, job_id, self._clock())
            if job.state not in ("queued", "interrupted"):
                raise Conflict(f"job {job_id} is {job.state}")
            self._change(connection, job_id, state="running", started_at=job.started_at or self._clock())
        return self.get(job_id)

    def claim(self, job_id: str, name: str) -> None:
        """Keep every other job from what `name` stands for, until this one ends or dies.

        Raises:
            Conflict: another job has claimed it; the message holds its id.
        """
        with writing(self._engine) as connection:
            take_turns(connection, _JOBS_LOCK)
            holder = _find_holder(connection, name, self._clock())
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
            take_turns(connection, _JOBS_LOCK)
            others = and_(JobRow.lock == name, JobRow.id != job_id)
            if connection.execute(select(JobRow.id).where(others, _alive(self._clock()))).first() is not None:
                return False
            # A holder that only seemed dead learns by this that it has lost the lock.
            connection.execute(update(JobRow).where(others).values(lock=None))
            if not self._change(connection, job_id, lock=name):
                raise Conflict(f"job {job_id} has ended")
        return True

    def keep_lock(self, job_id: str, name: str) -> bool:
        """Renew the lease of a job that holds a lock; False when another job has taken the lock."""
        with writing(self._engine) as connection:
            take_turns(connection, _JOBS_LOCK)
            held = select(JobRow.id).where(JobRow.id == job_id, JobRow.lock == name)
            return connection.execute(held).first() is not None and self._change(connection, job_id)

    def unlock(self, job_id: str) -> None:
        """Release the lock of a job, if it holds one."""
        with writing(self._engine) as connection:
            self._change(connection, job_id, lock=None)

    def beat(self, job_id: str, progress: Progress) -> bool:
        """Send a heartbeat; False when the job was canceled or has lost its claim to another."""
        with writing(self._engine) as connection:
            take_turns(connection, _JOBS_LOCK)
            claim = _read_job(connection, job_id, self._clock()).claim
            holder = None if claim is None else _find_holder(connection, claim, self._clock())
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
        """Record the end of a job, unless it has already ended, as by a cancellation."""
        values = {"state": state, "result": result, "error": error, "finished_at": self._clock()}
        with writing(self._engine) as connection:
            self._change(connection, job_id, progress=asdict(progress), **values)

    def cancel(self, job_id: str) -> Job:
        """Mark a job as canceled; its process stops at its next heartbeat.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended already.
        """
        with writing(self._engine) as connection:
            job = _read_job(connection, job_id, self._clock())
            if not self._change(connection, job_id, state="canceled", finished_at=self._clock()):
                raise Conflict(f"job {job_id} has already ended: {job.state}")
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """Read one job; NotFound when there is none of that id."""
        with reading(self._engine) as connection:
            return _read_job(connection, job_id, self._clock())

    def alike(self, kind: str, args: Mapping[str, Any]) -> Job | None:
        """Find the living job that does the same."""
        with reading(self._engine) as connection:
            return _find_alike(connection, kind, args, self._clock())

    def holder(self, name: str) -> Job | None:
        """Find the living job that has claimed this."""
        with reading(self._engine) as connection:
            return _find_holder(connection, name, self._clock())

    def report_files(self, job_id: str) -> set[str] | None:
        """Read the sha256 of all files that results name; None while another job lives, which may add more."""
        with reading(self._engine) as connection:
            others = select(JobRow.id).where(JobRow.id != job_id, _alive(self._clock())).limit(1)
            return None if connection.execute(others).first() else read_report_files(connection)

    def page(self, limit: int) -> list[Job]:
        """Read the latest jobs, newest first."""
        rows = _JOBS.order_by(JobRow.created_at.desc(), JobRow.id).limit(limit)
        return [_job_of(row, self._clock()) for row in self._read(rows)]

    def _change(self, connection: Connection, job_id: str, **values: Any) -> bool:
        """Change an unfinished job and renew its lease; False when it has ended."""
        now = self._clock()
        changed = connection.execute(
            update(JobRow)
            .where(JobRow.id == job_id, JobRow.state.in_(_UNFINISHED))
            .values(heartbeat_at=now, expires_at=now + timedelta(seconds=self.lease_s), **values)
        )
        return changed.rowcount > 0
