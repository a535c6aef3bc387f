"""Context of a job in its process: heartbeat, progress, locks, settings and stores."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from catalog.jobs import SqlJobs
from catalog.opening import Catalog
from core.errors import Conflict, Unavailable, VitrineError
from core.jobs import Job, Progress
from core.store_check import StoreCheck
from jobs.runner.settings import Settings
from milvus.store import MilvusStore

logger = logging.getLogger(__name__)

_BEATS_A_LEASE = 6
_LOOK_S = 0.1
_LOCK_WAIT_S = 180.0


class JobRun:
    """Context manager around the work of one job; a thread reports progress and watches for a cancellation.

    At the end the job has succeeded with `result`, or failed with the error's message and the partial result.
    """

    def __init__(self, jobs: SqlJobs, job: Job, watch: Callable[[Progress], None] | None = None) -> None:
        """`watch` is called with the progress whenever that changes."""
        self.job = job
        self._watch = watch
        self.result: Mapping[str, Any] | None = None
        self.started = time.time()
        self._jobs = jobs
        self._progress = Progress("starting")
        self._ended = threading.Event()
        self._stopped = False
        self._heart = threading.Thread(target=self._beat_regularly, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Start the heartbeat."""
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record the end."""
        self._ended.set()
        self._heart.join()
        if error is None:
            self.report(stage="done", eta_s=0.0)
            self._jobs.finish(self.job.job_id, "succeeded", self._progress, self.result)
            return
        message = error.message if isinstance(error, VitrineError) else f"{kind.__name__ if kind else ''}"
        self._jobs.finish(self.job.job_id, "failed", self._progress, self.result, message)

    def report(self, **changes: Any) -> None:
        """Change fields of the progress; the next heartbeat sends them."""
        self._progress = replace(self._progress, **changes)
        if self._watch is not None:
            self._watch(self._progress)

    def claim(self, name: str) -> None:
        """Keep other jobs from `name` until this one ends; waits for the lease of a dead holder.

        Raises:
            Conflict: a living job holds it; the message holds its id.
        """
        once_free(lambda: self._jobs.claim(self.job.job_id, name), lambda: self._jobs.holder(name))

    @contextmanager
    def locked(self, name: str) -> Iterator[Callable[[], None]]:
        """Hold a lock during the block; waits for its holder, or for the lease of a dead one.

        Yields a function to call right before the protected action. It raises Unavailable when this process was
        suspended for so long that another has taken the lock, and Conflict when this job was canceled.

        Raises:
            Unavailable: others hold the lock for longer than `_LOCK_WAIT_S`.
            Conflict: this job was canceled.
        """
        deadline = time.monotonic() + _LOCK_WAIT_S
        while not self._jobs.lock(self.job.job_id, name):
            if time.monotonic() > deadline:
                raise Unavailable(f"another job has held {name} for {_LOCK_WAIT_S:g} s; try again")
            self.pause(_LOOK_S)

        def keep() -> None:
            self.check()
            if not self._jobs.keep_lock(self.job.job_id, name):
                # A cancellation, which also ends the lock, may not have been noticed yet.
                if self._jobs.get(self.job.job_id).state == "canceled":
                    raise Conflict(f"job {self.job.job_id} was canceled")
                raise Unavailable(f"another job has taken {name} meanwhile; try again")

        try:
            yield keep
        finally:
            try:
                self._jobs.unlock(self.job.job_id)
            except Unavailable as error:
                # The protected action is done, and the lock ends with this job.
                logger.warning("%s stays locked until this job has ended: %s", name, error.message)

    def check(self) -> None:
        """Raise when the job should stop.

        Raises:
            Conflict: it was canceled, or counted as dead and was replaced.
        """
        if self._stopped:
            raise Conflict(f"job {self.job.job_id} was canceled or replaced")

    def pause(self, seconds: float) -> None:
        """Wait; a cancellation ends the wait."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            time.sleep(_LOOK_S)

    def _beat_regularly(self) -> None:
        while not self._stopped:
            try:
                self._stopped = not self._jobs.beat(self.job.job_id, self._progress)
            except Unavailable as error:
                logger.warning("no heartbeat: %s", error.message)
            except Exception:
                # Without heartbeats another process takes over this work.
                logger.exception("heartbeats have ended")
                self._stopped = True
            if self._ended.wait(self._jobs.lease_s / _BEATS_A_LEASE):
                return


def take_up(
    jobs: SqlJobs,
    kind: str,
    args: Mapping[str, Any],
    watch: Callable[[Progress], None] | None = None,
) -> JobRun:
    """Create a job and begin it in this process; waits for the lease of a dead equal job.

    Raises:
        Conflict: a living job does the same; the message holds its id.
    """
    created: list[Job] = []
    once_free(lambda: created.append(jobs.create(kind, args)), lambda: jobs.alike(kind, args))
    return JobRun(jobs, jobs.begin(created[0].job_id), watch)


def once_free(attempt: Callable[[], None], holder: Callable[[], Job | None]) -> None:
    """Retry while the holder sends no heartbeat; a new heartbeat ends the wait.

    Raises:
        Conflict: the holder lives.
    """
    seen: Job | None = None
    while True:
        try:
            return attempt()
        except Conflict:
            now = holder()
            alive = seen is not None and now is not None and now.heartbeat_at > seen.heartbeat_at
            # A queued job sends no heartbeat and is not dead.
            if now is not None and (alive or now.state == "queued"):
                raise
            seen = now
        time.sleep(_LOOK_S)


@dataclass(frozen=True, slots=True)
class JobContext:
    """The job's run, settings and open catalog; Ray is connected where the kind needs it.

    `at_shell`: the job was started from a shell, and may read all that this process may.
    """

    run: JobRun
    settings: Settings
    catalog: Catalog
    at_shell: bool = False


@contextmanager
def open_store(context: JobContext, known: bool = True) -> Iterator[MilvusStore]:
    """Connect to Milvus; `known`: only to the one that the ledger describes.

    Raises:
        StoreUnknown: it is another one.
        Unavailable: it does not answer.
    """
    store = MilvusStore(context.settings.milvus)
    try:
        if known:
            StoreCheck(store, context.catalog.ledger).require()
        yield store
    finally:
        store.close()
