"""Bulk work: `vitrine.jobs`."""

import time
from collections.abc import Iterator

from vitrine.calls import jobs
from vitrine.errors import TryLater
from vitrine.operations import Job, RowError
from vitrine.patience import Patience
from vitrine.sender import Sender, sent


class Jobs:
    """Submit, follow and cancel jobs."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    submit = sent(jobs.submit)
    list = sent(jobs.listed)
    get = sent(jobs.get)
    logs = sent(jobs.logs)
    report = sent(jobs.report)
    error_page = sent(jobs.errors)
    cancel = sent(jobs.cancel)

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
