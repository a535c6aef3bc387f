"""Jobs in SQL: what is asked for, who works on what, and how far it is.

A job's process renews its lease with every sign of life. One that dies, however suddenly, stops doing so:
its lease runs out, the job shows as interrupted, and what it had claimed is free again.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, func, insert, select, update

from catalog.clock import utc_now
from catalog.tables import JobRow
from catalog.transactions import reading, writing
from core.errors import Conflict, NotFound
from core.jobs import Job, JobState, Progress

START_S = 180.0
"""How long a job may take from its creation to its first sign of life: a cluster may have to grow."""
LEASE_S = 20.0
"""How long a sign of life counts."""
_JOBS = select(*JobRow.__table__.columns)
_JOB_ID = re.compile(r"[a-z0-9_-]{1,64}")
_LOCK = (0x7669, 0x6A6F)
"""PostgreSQL's advisory lock under which jobs are created and claims are taken."""


class SqlJobs:
    """The register of jobs; every method may raise Unavailable."""

    def __init__(
        self, engine: Engine, clock: Callable[[], datetime] = utc_now, lease_s: float = LEASE_S
    ) -> None:
        self._engine = engine
        self._clock = clock
        self.lease_s = lease_s

    def create(self, kind: str, args: Mapping[str, Any]) -> Job:
        """Register a job as queued.

        Raises:
            Conflict: an equal job is queued or running; the message holds its id.
        """
        now = self._clock()
        job_id = f"{kind}-{uuid.uuid4().hex[:12]}"
        with writing(self._engine) as connection:
            _take_turns(connection)
            alike = self._alike(connection, kind, args)
            if alike is not None:
                raise Conflict(f"job {alike.job_id} is already doing this")
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
            _take_turns(connection)
            job = self._read(connection, job_id)
            if job.state not in ("queued", "interrupted"):
                raise Conflict(f"job {job_id} is {job.state}")
            self._update(connection, job_id, state="running", started_at=job.started_at or self._clock())
        return self.get(job_id)

    def claim(self, job_id: str, name: str) -> None:
        """Keep every other job off what `name` stands for, until this one ends or dies.

        Raises:
            Conflict: another job has claimed it; the message holds its id.
        """
        with writing(self._engine) as connection:
            _take_turns(connection)
            holder = self._holder(connection, name)
            if holder is not None and holder.job_id != job_id:
                raise Conflict(f"job {holder.job_id} works on {name}")
            self._update(connection, job_id, claim=name)

    def beat(self, job_id: str, progress: Progress) -> bool:
        """Give a sign of life; False when the job was cancelled, or lost its claim to another meanwhile."""
        with writing(self._engine) as connection:
            _take_turns(connection)
            claim = self._read(connection, job_id).claim
            holder = None if claim is None else self._holder(connection, claim)
            if holder is not None and holder.job_id != job_id:
                return False
            return self._update(connection, job_id, progress=asdict(progress))

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
            self._update(connection, job_id, progress=asdict(progress), **values)

    def cancel(self, job_id: str) -> Job:
        """Mark a job as cancelled, which its process notices at its next sign of life.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended already.
        """
        with writing(self._engine) as connection:
            job = self._read(connection, job_id)
            if not self._update(connection, job_id, state="cancelled", finished_at=self._clock()):
                raise Conflict(f"job {job_id} has already ended: {job.state}")
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """Read one job; NotFound when there is none of that id."""
        with reading(self._engine) as connection:
            return self._read(connection, job_id)

    def alike(self, kind: str, args: Mapping[str, Any]) -> Job | None:
        """Find the living job that keeps an equal one from being created."""
        with reading(self._engine) as connection:
            return self._alike(connection, kind, args)

    def holder(self, name: str) -> Job | None:
        """Find the living job that has claimed this."""
        with reading(self._engine) as connection:
            return self._holder(connection, name)

    def page(self, limit: int) -> list[Job]:
        """Read the latest jobs, newest first."""
        rows = _JOBS.order_by(JobRow.created_at.desc(), JobRow.id).limit(limit)
        with reading(self._engine) as connection:
            return [self._job(row) for row in connection.execute(rows)]

    def _alive(self) -> ColumnElement[bool]:
        return and_(JobRow.state.in_(("queued", "running")), JobRow.expires_at > self._clock())

    def _alike(self, connection: Connection, kind: str, args: Mapping[str, Any]) -> Job | None:
        rows = connection.execute(_JOBS.where(JobRow.kind == kind, self._alive()))
        return next((self._job(row) for row in rows if row.args == dict(args)), None)

    def _holder(self, connection: Connection, name: str) -> Job | None:
        row = connection.execute(_JOBS.where(JobRow.claim == name, self._alive())).first()
        return None if row is None else self._job(row)

    def _update(self, connection: Connection, job_id: str, **values: Any) -> bool:
        """Change an unfinished job and renew its lease; False when it has ended."""
        now = self._clock()
        changed = connection.execute(
            update(JobRow)
            .where(JobRow.id == job_id, JobRow.state.in_(("queued", "running")))
            .values(heartbeat_at=now, expires_at=now + timedelta(seconds=self.lease_s), **values)
        )
        return changed.rowcount > 0

    def _read(self, connection: Connection, job_id: str) -> Job:
        row = None
        if _JOB_ID.fullmatch(job_id):
            row = connection.execute(_JOBS.where(JobRow.id == job_id)).one_or_none()
        if row is None:
            raise NotFound(f"there is no job {job_id!r:.80}")
        return self._job(row)

    def _job(self, row: Row[Any]) -> Job:
        lost = row.state in ("queued", "running") and row.expires_at <= self._clock()
        return Job(
            job_id=row.id,
            kind=row.kind,
            args=row.args,
            state="interrupted" if lost else row.state,
            progress=Progress(**row.progress),
            claim=row.claim,
            result=row.result,
            error=row.error,
            created_at=row.created_at,
            started_at=row.started_at,
            heartbeat_at=row.heartbeat_at,
            finished_at=row.finished_at,
        )


def _take_turns(connection: Connection) -> None:
    # On SQLite the transaction holds the only write lock there is.
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(*_LOCK)))
