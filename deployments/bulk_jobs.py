"""Jobs as the API offers them: registered in the catalog, done by a process that Ray starts."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError

from catalog.opening import Catalog
from catalog.sources.folder_paths import check_opened
from core.errors import DeadlineExceeded, InvalidInput, NotFound, Unavailable
from core.jobs import CANDIDATE, KINDS, EvaluateArgs, Job, JobArgs, Progress, RollbackArgs
from deployments.ray_jobs import JobRunner

P = ParamSpec("P")
T = TypeVar("T")


class BulkJobs:
    """Submit, look at and cancel jobs. What is known of a job is in the catalog and outlives Ray."""

    def __init__(
        self,
        catalog: Catalog,
        runner: JobRunner,
        deadline_s: float,
        models: Collection[str],
        folders: Sequence[str],
    ) -> None:
        """`models` and `folders` are what jobs may name."""
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
            Conflict: an equal job is at work; the message holds its id.
            Unavailable: Ray takes no jobs; the job is registered as failed.
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
        """Read the last lines that the job's process has written, as far as `MAX_LOG_BYTES` go.

        Raises:
            NotFound: there is no such job, or Ray knows nothing of it.
        """
        await self.get(job_id)
        return await self._ask(self._runner.logs, job_id, lines)

    def _check_names(self, args: JobArgs) -> None:
        """Refuse a job that names what does not exist, before anybody waits for it to fail."""
        for param, model in _named_models(args):
            if model not in self._models:
                known = ", ".join(sorted(self._models)) or "none"
                raise NotFound(f"there is no model {model!r:.80}; models: {known}").at(param)
        if isinstance(args, RollbackArgs) and args.to is not None:
            found = [info.fingerprint for info in self._ledger.versions() if info.name == args.model]
            if args.to not in found:
                versions = ", ".join(found) or "none"
                message = f"model {args.model!r} has no version {args.to}; versions: {versions}"
                raise NotFound(message).at("args.to")
        check_opened(args, self._folders)

    async def _ask(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.to_thread(call, *args, **options)
        except TimeoutError:
            raise DeadlineExceeded(f"Ray did not answer within {self._deadline_s:g} s") from None


def _named_models(args: JobArgs) -> Iterator[tuple[str, str]]:
    """List the models that a job names, each with where it does."""
    model = getattr(args, "model", None)
    if model is not None:
        yield "args.model", model
    if isinstance(args, EvaluateArgs):
        yield from ((f"args.models[{index}]", each) for index, each in enumerate(args.models))
        if args.candidate is not None:
            yield "args.candidate.model", args.candidate.model
        for index, ensemble in enumerate(args.ensembles):
            for member in ensemble.weights:
                yield f"args.ensembles[{index}].weights", member.removesuffix(CANDIDATE)


def _check(kind: str, args: Mapping[str, Any]) -> JobArgs:
    if kind not in KINDS:
        raise InvalidInput(f"there is no kind {kind!r:.40} of job; kinds: {', '.join(sorted(KINDS))}").at(
            "kind"
        )
    try:
        return KINDS[kind].model_validate(args)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(["args", *(str(part) for part in first["loc"])])
        raise InvalidInput(first["msg"]).at(path) from None
