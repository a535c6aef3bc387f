"""Ray Jobs: where a job of the API becomes a process on the cluster."""

import shlex
import sys
from typing import Any, Protocol

import ray

from core.errors import NotFound, Unavailable
from core.request_ids import current_request_id


class JobRunner(Protocol):
    """Starts processes for jobs. Blocking; each method raises Unavailable when the cluster does not answer."""

    def start(self, job_id: str) -> None:
        """Start a process that does the job."""
        ...

    def stop(self, job_id: str) -> None:
        """End the job's process; nothing happens where there is none."""
        ...

    def logs(self, job_id: str) -> str:
        """Read what the job's process has written; NotFound where there is none."""
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

    def logs(self, job_id: str) -> str:
        """Read the output of the submitted process."""
        try:
            logs: str = self._client().get_job_logs(job_id)
        except (RuntimeError, OSError) as error:
            if _is_missing(error):
                raise NotFound(
                    f"there are no logs of job {job_id}: it was started from a shell, or on a Ray cluster "
                    "that has ended"
                ) from error
            raise _unreachable(error) from error
        return logs

    def _client(self) -> Any:
        # Imported here and made anew for each call: both are cheap, and the dashboard may have moved.
        from ray.job_submission import JobSubmissionClient

        answer_s = self._answer_s

        class Client(JobSubmissionClient):  # type: ignore[misc]
            """Waits for no answer forever, as the one of Ray does."""

            def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
                return super()._do_request(method, endpoint, **{"timeout": answer_s, **options})

        try:
            return Client(self._dashboard_url or ray.get_runtime_context().gcs_address)
        except (RuntimeError, ValueError, OSError) as error:
            raise _unreachable(error) from error


def _is_missing(error: Exception) -> bool:
    return "status code 404" in str(error) or "does not exist" in str(error)


def _unreachable(error: Exception) -> Unavailable:
    return Unavailable(
        f"Ray does not take jobs now ({type(error).__name__}): its dashboard must run and be reachable, "
        "or start the job from a shell with `python -m jobs`"
    )
