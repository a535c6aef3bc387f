"""Jobs of the API: registered in the catalog, run as processes by Ray Jobs."""

import asyncio
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

import httpx
import ray
from pydantic import ValidationError

from catalog.opening import Catalog
from catalog.sources.folder import check_opened
from core.errors import DeadlineExceeded, InvalidInput, NotFound, Unavailable
from core.jobs import CANDIDATE_SUFFIX, KINDS, EvaluateArgs, Job, JobArgs, Progress, RollbackArgs
from core.telemetry import current_request_id
from deployments.config import JobsConfig
from deployments.http.errors import invalid

MAX_LOG_BYTES = 4 * 2**20
"""Most bytes that are read from the end of a job's log, however long its lines are."""
_READ_BYTES = 64 * 2**10
_MISSING = ("status code 404", "does not exist", "doesn't exist", "Could not find a log file")
P = ParamSpec("P")
T = TypeVar("T")


class JobRunner(Protocol):
    """Runs the processes of jobs. Blocking; each method raises Unavailable when the cluster does not answer."""

    def start(self, job_id: str) -> None:
        """Start a process for the job."""

    def stop(self, job_id: str) -> None:
        """End the job's process; nothing happens where there is none."""

    def logs(self, job_id: str, lines: int) -> str:
        """Read the last lines of the process's output; NotFound where there is none."""


class RayJobs:
    """Implements `JobRunner` over the job server of Ray's dashboard."""

    def __init__(self, config: JobsConfig) -> None:
        self._config = config
        self._dashboard_url = config.dashboard_url
        self._answer_s = config.deadline_s

    def start(self, job_id: str) -> None:
        """Submit `python -m jobs run …`, which reads the rest from the catalog and from Serve."""
        command = [sys.executable, "-m", "jobs", "run", job_id]
        if self._dashboard_url is None:
            # By itself the process would use the Ray cluster that was started last on the machine.
            command += ["--address", ray.get_runtime_context().gcs_address]
        if request_id := current_request_id():
            command.append(f"--request-id={request_id}")
        try:
            self._client().submit_job(
                entrypoint=shlex.join(command),
                submission_id=job_id,
                entrypoint_resources=self._config.process_resources or None,
                entrypoint_memory=self._config.process_memory_bytes or None,
            )
        except (RuntimeError, OSError) as error:
            raise _unreachable(error) from error

    def stop(self, job_id: str) -> None:
        """Stop the submitted process: Ray sends SIGTERM, and SIGKILL after 3 s."""
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
        # Imported and created for each call: both are cheap, and the dashboard may move.
        from ray.job_submission import JobSubmissionClient

        answer_s = self._answer_s

        class Client(JobSubmissionClient):  # type: ignore[misc]
            """Client with a timeout; Ray's own waits forever."""

            def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
                return super()._do_request(method, endpoint, **{"timeout": answer_s, **options})

            def log_tail(self, job_id: str, lines: int) -> bytes:
                """Read the end of a job's log.

                The client's own call reads the complete file into the memory of three processes. Ray's state API
                sends lines from the end, but its `get_log` has no timeout, and `_do_request` reads all of a
                response. So the request is made here, with the client's address and headers.
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


def _end_of(stream: Iterable[bytes], until: float) -> bytes:
    """Keep the last `MAX_LOG_BYTES`, from the beginning of a line where there is one.

    Raises:
        TimeoutError: `until`, a time of the monotonic clock, has passed.
    """
    end, is_cut = bytearray(), False
    for data in stream:
        if time.monotonic() > until:
            raise TimeoutError("the log did not come in time")
        end += data
        if len(end) > MAX_LOG_BYTES:
            del end[:-MAX_LOG_BYTES]
            is_cut = True
    _, _, complete_lines = end.partition(b"\n")
    return bytes(complete_lines if is_cut and complete_lines else end)


def _is_missing(error: Exception) -> bool:
    return any(each in str(error) for each in _MISSING)


def _unreachable(error: Exception) -> Unavailable:
    return Unavailable(
        f"Ray does not take jobs now ({type(error).__name__}): its dashboard must run and be reachable, "
        "or start the job from a shell with `vitrine … --local`"
    )


class BulkJobs:
    """Submits, reads and cancels jobs. The state of a job is in the catalog and outlives Ray."""

    def __init__(
        self,
        catalog: Catalog,
        runner: JobRunner,
        deadline_s: float,
        models: Collection[str],
        folders: Sequence[str],
    ) -> None:
        """`models` and `folders` are those that jobs may name."""
        self._jobs = catalog.jobs
        self._ledger = catalog.ledger
        self._models = models
        self._folders = folders
        self._runner = runner
        self._deadline_s = deadline_s

    async def submit(self, kind: str, args: Mapping[str, Any]) -> Job:
        """Register a job and start its process.

        Raises:
            InvalidInput: the kind or an argument is unknown or wrong, or a folder is not open to jobs.
            NotFound: a model or a version is unknown.
            Conflict: an equal job is running; the message holds its id.
            Unavailable: Ray accepts no jobs; the job is registered as failed.
        """
        checked = _check(kind, args)
        await asyncio.to_thread(self._check_names, checked)
        kept = checked.model_dump(mode="json", exclude_defaults=True)
        job = await asyncio.to_thread(self._jobs.create, kind, kept)
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
        """Mark a job as canceled and stop its process; one from a shell stops at its next heartbeat.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended already.
        """
        job = await asyncio.to_thread(self._jobs.cancel, job_id)
        try:
            await self._ask(self._runner.stop, job_id)
        except Unavailable:
            # The process learns of it from the catalog.
            return job
        return job

    async def logs(self, job_id: str, lines: int) -> str:
        """Read the last lines of the process's output, at most `MAX_LOG_BYTES`.

        Raises:
            NotFound: there is no such job, or Ray has no record of it.
        """
        await self.get(job_id)
        return await self._ask(self._runner.logs, job_id, lines)

    def _check_names(self, args: JobArgs) -> None:
        """Refuse a job that names a model, version or folder that does not exist or is not open to jobs."""
        for param, model in _named_models(args):
            if model not in self._models:
                known = ", ".join(sorted(self._models)) or "none"
                raise NotFound(f"there is no model {model!r:.80}; models: {known}").at(param)
        if isinstance(args, RollbackArgs) and args.fingerprint is not None:
            found = [info.fingerprint for info in self._ledger.versions() if info.name == args.model]
            if args.fingerprint not in found:
                versions = ", ".join(found) or "none"
                message = f"model {args.model!r} has no version {args.fingerprint}; versions: {versions}"
                raise NotFound(message).at("args.fingerprint")
        check_opened(args, self._folders)

    async def _ask(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.to_thread(call, *args, **options)
        except TimeoutError:
            raise DeadlineExceeded(f"Ray did not answer within {self._deadline_s:g} s") from None


def _named_models(args: JobArgs) -> Iterator[tuple[str, str]]:
    """Yield the models that a job names, each with its path in the request."""
    model = getattr(args, "model", None)
    if model is not None:
        yield "args.model", model
    if isinstance(args, EvaluateArgs):
        yield from ((f"args.compare[{index}]", each) for index, each in enumerate(args.compare))
        for index, ensemble in enumerate(args.ensembles):
            for member in ensemble.weights:
                yield f"args.ensembles[{index}].weights", member.removesuffix(CANDIDATE_SUFFIX)


def _check(kind: str, args: Mapping[str, Any]) -> JobArgs:
    if kind not in KINDS:
        raise InvalidInput(f"there is no kind {kind!r:.40} of job; kinds: {', '.join(sorted(KINDS))}").at(
            "kind"
        )
    try:
        return KINDS[kind].model_validate(args)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise invalid(first["msg"], ("args", *first["loc"])) from None
