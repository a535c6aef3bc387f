"""Rows of jobs, inside a transaction that the caller holds."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, select, update

from catalog.tables import JobRow
from core.errors import NotFound
from core.jobs import Job, Progress

JOBS = select(*JobRow.__table__.columns)
_ROWS_AT_ONCE = 1_000
_UNFINISHED = ("queued", "running")
_JOB_ID = re.compile(r"[a-z0-9_-]{1,64}")
_LOCK = (0x7669, 0x6A6F)
"""PostgreSQL's advisory lock under which jobs are created and claims are taken."""


def take_turns(connection: Connection) -> None:
    """Let one transaction at a time create jobs and take claims."""
    # On SQLite the transaction holds the only write lock there is.
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(*_LOCK)))


def read(connection: Connection, job_id: str, now: datetime) -> Job:
    """Read one job; NotFound when there is none of that id."""
    row = None
    if _JOB_ID.fullmatch(job_id):
        row = connection.execute(JOBS.where(JobRow.id == job_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id!r:.80}")
    return job_of(row, now)


def alike(connection: Connection, kind: str, args: Mapping[str, Any], now: datetime) -> Job | None:
    """Find a living job that does the same."""
    rows = connection.execute(JOBS.where(JobRow.kind == kind, _alive(now)))
    return next((job_of(row, now) for row in rows if row.args == dict(args)), None)


def holder(connection: Connection, name: str, now: datetime) -> Job | None:
    """Find the living job that has claimed this."""
    row = connection.execute(JOBS.where(JobRow.claim == name, _alive(now))).first()
    return None if row is None else job_of(row, now)


def lock(connection: Connection, job_id: str, name: str, now: datetime) -> bool:
    """Take a lock from whoever is dead; False while another living job holds it."""
    others = and_(JobRow.lock == name, JobRow.id != job_id)
    if connection.execute(select(JobRow.id).where(others, _alive(now))).first() is not None:
        return False
    # One that only seemed to be dead finds out by this that it holds it no more.
    connection.execute(update(JobRow).where(others).values(lock=None))
    return True


def holds(connection: Connection, job_id: str, name: str) -> bool:
    """Tell whether a job holds a lock that nobody has taken from it."""
    held = select(JobRow.id).where(JobRow.id == job_id, JobRow.lock == name)
    return connection.execute(held).first() is not None


def change(connection: Connection, job_id: str, now: datetime, lease_s: float, **values: Any) -> bool:
    """Change an unfinished job and renew its lease; False when it has ended."""
    changed = connection.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state.in_(_UNFINISHED))
        .values(heartbeat_at=now, expires_at=now + timedelta(seconds=lease_s), **values)
    )
    return changed.rowcount > 0


def forget_before(connection: Connection, before: datetime, now: datetime) -> None:
    """Drop the jobs that have ended, or died, before a moment."""
    connection.execute(
        delete(JobRow).where(JobRow.heartbeat_at < before, ~_alive(now)),
    )


def report_files(connection: Connection) -> set[str]:
    """Read which files, by sha256, the results of jobs name."""
    results = connection.scalars(select(JobRow.result), execution_options={"yield_per": _ROWS_AT_ONCE})
    return {sha256 for result in results for sha256 in ((result or {}).get("files") or {}).values()}


def others_live(connection: Connection, job_id: str, now: datetime) -> bool:
    """Tell whether any job but this one is alive."""
    return (
        connection.execute(select(JobRow.id).where(JobRow.id != job_id, _alive(now)).limit(1)).first()
        is not None
    )


def job_of(row: Row[Any], now: datetime) -> Job:
    """Show a row as a job; one whose lease has run out is interrupted."""
    lost = row.state in _UNFINISHED and row.expires_at <= now
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


def _alive(now: datetime) -> ColumnElement[bool]:
    return and_(JobRow.state.in_(_UNFINISHED), JobRow.expires_at > now)
