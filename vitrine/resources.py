"""Jobs and API keys of a client: `Vitrine.jobs` and `Vitrine.keys`, blocking and for asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from vitrine import calls, transport
from vitrine.errors import TryLater
from vitrine.schemas import Job, RowError
from vitrine.transport import AsyncSender, Sender, sent, sent_async


@dataclass(slots=True)
class Patience:
    """Bears failures in a row for `limit_s` seconds."""

    limit_s: float
    _since: float | None = field(default=None, init=False)

    def bear(self, error: TryLater) -> None:
        """Take a failure in.

        Raises:
            TryLater: the failures last too long.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self.limit_s:
            raise error

    def reward(self) -> None:
        """Forget the failures: there was an answer."""
        self._since = None


class Jobs:
    """Submit, follow and cancel jobs."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    submit = sent(calls.submit)
    list = sent(calls.list_jobs)
    get = sent(calls.get)
    logs = sent(calls.logs)
    report = sent(calls.report)
    error_page = sent(calls.errors)
    cancel = sent(calls.cancel)

    def errors(self, job_id: str, page_size: int = 1000) -> Iterator[RowError]:
        """Go through all that was wrong with the rows of an import, in their order."""
        after = 0
        while page := self.error_page(job_id, page_size, after):
            yield from page
            after = page[-1].row

    def follow(self, job_id: str, poll_s: float = 1.0, patience_s: float = 120.0) -> Iterator[Job]:
        """Look at a job every `poll_s` seconds until it has ended, which is the last look.

        Raises:
            TryLater: the service has not answered for `patience_s` seconds.
        """
        patience = Patience(patience_s)
        while True:
            try:
                job = self.get(job_id)
            except TryLater as error:
                patience.bear(error)
            else:
                patience.reward()
                yield job
                if job.ended:
                    return
            time.sleep(poll_s)

    def wait(self, job_id: str, timeout_s: float | None = None, poll_s: float = 1.0) -> Job:
        """Wait until a job has ended, and return it, whatever it came to.

        Raises:
            TimeoutError: it goes on after `timeout_s` seconds.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for job in self.follow(job_id, poll_s):
            if job.ended:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                break
        raise TimeoutError(f"job {job_id} has not ended within {timeout_s:g} s")


class AsyncJobs:
    """Submit, follow and cancel jobs."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    submit = sent_async(calls.submit)
    list = sent_async(calls.list_jobs)
    get = sent_async(calls.get)
    logs = sent_async(calls.logs)
    report = sent_async(calls.report)
    error_page = sent_async(calls.errors)
    cancel = sent_async(calls.cancel)

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


class Keys:
    """Make, list and revoke keys; all of it takes an admin's key."""

    def __init__(self, sending: transport.Sender) -> None:
        self._sender = sending

    create = transport.sent(calls.create)
    list = transport.sent(calls.list_keys)
    revoke = transport.sent(calls.revoke)


class AsyncKeys:
    """Make, list and revoke keys; all of it takes an admin's key."""

    def __init__(self, sending: transport.AsyncSender) -> None:
        self._sender = sending

    create = transport.sent_async(calls.create)
    list = transport.sent_async(calls.list_keys)
    revoke = transport.sent_async(calls.revoke)
