"""Jobs as the API offers them: registered in the catalog, done by a process that Ray starts."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from catalog.jobs import SqlJobs
from core.errors import DeadlineExceeded, InvalidInput, Unavailable
from core.jobs import KINDS, Job, Progress
from deployments.ray_jobs import JobRunner

T = TypeVar("T")


class BulkJobs:
    """Submit, look at and cancel jobs. What is known of a job is in the catalog and outlives Ray."""

    def __init__(self, jobs: SqlJobs, runner: JobRunner, deadline_s: float) -> None:
        self._jobs = jobs
        self._runner = runner
        self._deadline_s = deadline_s

    async def submit(self, kind: str, args: Mapping[str, Any]) -> Job:
        """Register a job and start its process.

        Raises:
            InvalidInput: the kind or an argument is unknown or wrong.
            Conflict: an equal job is at work; the message holds its id.
            Unavailable: Ray takes no jobs; the job is registered as failed.
        """
        checked = _check(kind, args)
        job = await asyncio.to_thread(self._jobs.create, kind, checked)
        try:
            await self._ask(self._runner.start, job.job_id)
        except Unavailable as error:
            await asyncio.to_thread(self._jobs.finish, job.job_id, "failed", Progress(), error=error.message)
            raise
        return job

    async def get(self, job_id: str) -> Job:
        """Read one job; NotFound when there is none."""
        return await asyncio.to_thread(self._jobs.get, job_id)

    async def page(self, limit: int) -> list[Job]:
        """Read the latest jobs, newest first."""
        return await asyncio.to_thread(self._jobs.page, limit)

    async def cancel(self, job_id: str) -> Job:
        """Mark a job as cancelled and end its process; one of a shell ends at its next sign of life.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended already.
        """
        job = await asyncio.to_thread(self._jobs.cancel, job_id)
        try:
            await self._ask(self._runner.stop, job_id)
        except Unavailable:
            # The process learns it from the catalog.
            return job
        return job

    async def logs(self, job_id: str, lines: int) -> str:
        """Read the last lines that the job's process has written.

        Raises:
            NotFound: there is no such job, or Ray knows nothing of it.
        """
        await self.get(job_id)
        written = await self._ask(self._runner.logs, job_id)
        return "".join(written.splitlines(keepends=True)[-lines:])

    async def _ask(self, call: Callable[[str], T], job_id: str) -> T:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.to_thread(call, job_id)
        except TimeoutError:
            raise DeadlineExceeded(f"Ray did not answer within {self._deadline_s:g} s") from None


def _check(kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
    if kind not in KINDS:
        raise InvalidInput(f"there is no kind {kind!r:.40} of job; kinds: {', '.join(sorted(KINDS))}").at(
            "kind"
        )
    try:
        return KINDS[kind].model_validate(args).model_dump(mode="json", exclude_defaults=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(["args", *(str(part) for part in first["loc"])])
        raise InvalidInput(first["msg"]).at(path) from None
