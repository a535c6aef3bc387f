"""Ray Jobs: where a job of the API becomes a process on the cluster."""

import shlex
import sys
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

import httpx
import ray

from core.errors import NotFound, Unavailable
from core.request_ids import current_request_id

MAX_LOG_BYTES = 4 * 2**20
"""So much of the end of a job's log is read at most, however long its lines are."""
_READ_BYTES = 64 * 2**10


class JobRunner(Protocol):
    """Starts processes for jobs. Blocking; each method raises Unavailable when the cluster does not answer."""

    def start(self, job_id: str) -> None:
        """Start a process that does the job."""
        ...

    def stop(self, job_id: str) -> None:
        """End the job's process; nothing happens where there is none."""
        ...

    def logs(self, job_id: str, lines: int) -> str:
        """Read the last lines that the job's process has written; NotFound where there is none."""
        ...


class RayJobs:
    """Implements `JobRunner` over the job server of Ray's dashboard."""

    def __init__(self, dashboard_url: str | None, answer_s: float) -> None:
        self._dashboard_url = dashboard_url
        self._answer_s = answer_s

    def start(self, job_id: str) -> None:
        """Submit `python -m jobs run …`, which reads the rest from the catalog and from Serve."""
        command = [sys.executable, "-m", "jobs", "run", job_id]
        if self._dashboard_url is None:
            # What Ray itself tells the process is the Ray that was started last on the machine.
            command += ["--address", ray.get_runtime_context().gcs_address]
        if request_id := current_request_id():
            command.append(f"--request-id={request_id}")
        try:
            self._client().submit_job(entrypoint=shlex.join(command), submission_id=job_id)
        except (RuntimeError, OSError) as error:
            raise _unreachable(error) from error

    def stop(self, job_id: str) -> None:
        """Stop the submitted process: Ray sends SIGTERM, and SIGKILL to what is left after 3 s."""
        try:
            self._client().stop_job(job_id)
        except (RuntimeError, OSError) as error:
            if not _is_missing(error):
                raise _unreachable(error) from error

    def logs(self, job_id: str, lines: int) -> str:
        """Read the last lines of the submitted process's output, `MAX_LOG_BYTES` of them at most."""
        try:
            tail: bytes = self._client().log_tail(job_id, lines)
        except (RuntimeError, OSError, httpx.HTTPError) as error:
            if _is_missing(error):
                raise NotFound(
                    f"there are no logs of job {job_id}: it was started from a shell, or its node or "
                    "Ray cluster has ended"
                ) from error
            raise _unreachable(error) from error
        return tail.decode(errors="replace")

    def _client(self) -> Any:
        # Imported here and made anew for each call: both are cheap, and the dashboard may have moved.
        from ray.job_submission import JobSubmissionClient

        answer_s = self._answer_s

        class Client(JobSubmissionClient):  # type: ignore[misc]
            """Waits for no answer forever, as the one of Ray does."""

            def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
                return super()._do_request(method, endpoint, **{"timeout": answer_s, **options})

            def log_tail(self, job_id: str, lines: int) -> bytes:
                """Read the end of a job's log.

                The client's own call reads the whole file into the memory of three processes. Ray's state API
                sends lines from the end, but its `get_log` waits without a bound, and `_do_request` reads all
                of an answer; so the request is made here, with what the client knows of the server.
                """
                node = self.get_job_info(job_id).driver_node_id
                if node is None:
                    return b""
                with httpx.stream(
                    "GET",
                    f"{self.get_address()}/api/v0/logs/file",
                    params={
                        "submission_id": job_id,
                        "node_id": node,
                        "lines": str(lines),
                        "timeout": str(max(1, int(answer_s))),
                    },
                    timeout=answer_s,
                    cookies=self._cookies,
                    headers=self._headers,
                    verify=self._verify,
                ) as answer:
                    if answer.is_success:
                        return _end_of(answer.iter_bytes(_READ_BYTES), time.monotonic() + answer_s)
                    problem = answer.read().decode(errors="replace")
                if "A file is not found at" in problem:
                    return b""
                raise RuntimeError(problem)

        try:
            return Client(self._dashboard_url or ray.get_runtime_context().gcs_address)
        except (RuntimeError, ValueError, OSError) as error:
            raise _unreachable(error) from error


_MISSING = ("status code 404", "does not exist", "doesn't exist", "Could not find a log file")


def _end_of(chunks: Iterable[bytes], until: float) -> bytes:
    """Keep the last `MAX_LOG_BYTES`, from the beginning of a line where there is one.

    Raises:
        TimeoutError: it takes longer than until then by the monotonic clock.
    """
    kept: deque[bytes] = deque()
    size = 0
    is_cut = False
    for chunk in chunks:
        if time.monotonic() > until:
            raise TimeoutError("the log did not come in time")
        kept.append(chunk)
        size += len(chunk)
        while size - len(kept[0]) >= MAX_LOG_BYTES:
            size -= len(kept.popleft())
            is_cut = True
    end = b"".join(kept)
    if size > MAX_LOG_BYTES:
        is_cut, end = True, end[-MAX_LOG_BYTES:]
    _, newline, whole_lines = end.partition(b"\n")
    return whole_lines if is_cut and newline and whole_lines else end


def _is_missing(error: Exception) -> bool:
    return any(each in str(error) for each in _MISSING)


def _unreachable(error: Exception) -> Unavailable:
    return Unavailable(
        f"Ray does not take jobs now ({type(error).__name__}): its dashboard must run and be reachable, "
        "or start the job from a shell with `python -m jobs`"
    )
