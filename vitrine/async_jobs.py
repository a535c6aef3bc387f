"""Bulk work: `vitrine.jobs`, for asyncio."""

import asyncio
from collections.abc import AsyncIterator

from vitrine.async_sender import AsyncSender, sent
from vitrine.calls import jobs
from vitrine.errors import TryLater
from vitrine.operations import Job, RowError
from vitrine.patience import Patience


class AsyncJobs:
    """Submit, follow and cancel jobs."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    submit = sent(jobs.submit)
    list = sent(jobs.listed)
    get = sent(jobs.get)
    logs = sent(jobs.logs)
    report = sent(jobs.report)
    error_page = sent(jobs.errors)
    cancel = sent(jobs.cancel)

    async def errors(self, job_id: str, page_size: int = 1000) -> AsyncIterator[RowError]:
        """Go through all that was wrong with the rows of an import, in their order."""
        after = 0
        while page := await self.error_page(job_id, page_size, after):
            for error in page:
                yield error
            after = page[-1].row

    async def follow(self, job_id: str, poll_s: float = 1.0, patience_s: float = 120.0) -> AsyncIterator[Job]:
        """Look at a job every `poll_s` seconds until it has ended, which is the last look.

        Raises:
            TryLater: the service has not answered for `patience_s` seconds.
        """
        patience = Patience(patience_s)
        while True:
            try:
                job = await self.get(job_id)
            except TryLater as error:
                patience.bear(error)
            else:
                patience.reward()
                yield job
                if job.ended:
                    return
            await asyncio.sleep(poll_s)

    async def wait(self, job_id: str, timeout_s: float | None = None, poll_s: float = 1.0) -> Job:
        """Wait until a job has ended, and return it, whatever it came to.

        Raises:
            TimeoutError: it goes on after `timeout_s` seconds.
        """
        async with asyncio.timeout(timeout_s):
            job = [job async for job in self.follow(job_id, poll_s)][-1]
        return job
