"""Bulk work."""

from typing import Any

from vitrine.call import Call, content, given, reader, text
from vitrine.calls.paths import path
from vitrine.operations import Job, RowError

_JOB, _JOBS, _ERRORS = reader(Job), reader(list[Job]), reader(list[RowError])


def submit(kind: str, **args: Any) -> Call[Job]:
    """Start bulk work, such as `submit("build", model="dinov2")`.

    Raises:
        InvalidRequest: the kind or an argument is unknown or wrong.
        Conflict: an equal job is at work; the message holds its id.
    """
    return Call("POST", path("jobs"), _JOB, json={"kind": kind, "args": args}, repeatable=False)


def listed(limit: int | None = None) -> Call[list[Job]]:
    """List the latest jobs, newest first."""
    return Call("GET", path("jobs"), _JOBS, params=given(limit=limit))


def get(job_id: str) -> Call[Job]:
    """Say how far a job is, or what it came to."""
    return Call("GET", path("jobs", job_id), _JOB)


def logs(job_id: str, lines: int | None = None) -> Call[str]:
    """Return the last lines that the job's process has written."""
    return Call("GET", path("jobs", job_id, "logs"), text, params=given(lines=lines))


def report(job_id: str) -> Call[bytes]:
    """Return the page, in HTML, that an evaluation has written; NotFound for jobs that write none."""
    return Call("GET", path("jobs", job_id, "report"), content)


def errors(job_id: str, limit: int | None = None, after: int | None = None) -> Call[list[RowError]]:
    """Say what was wrong with rows of an import, those behind row `after`."""
    return Call("GET", path("jobs", job_id, "errors"), _ERRORS, params=given(limit=limit, after=after))


def cancel(job_id: str) -> Call[Job]:
    """Stop a job; what it has done stays done. Conflict when it has ended."""
    return Call("DELETE", path("jobs", job_id), _JOB, repeatable=False)
