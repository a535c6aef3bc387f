"""Start of a job in this process: its function by kind, its log, its result."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from catalog.opening import Catalog, open_catalog
from core.errors import InvalidInput
from core.jobs import KINDS, JobArgs
from core.telemetry import answering, current_request_id
from jobs.runner.context import JobContext, JobRun, take_up
from jobs.runner.settings import running_settings, settings_of_file

Work = Callable[[JobContext, JobArgs], dict[str, Any]]

_FUNCTIONS = {
    "build": "jobs.build.build:build",
    "sample": "jobs.build.build:sample",
    "evaluate": "jobs.evaluation.evaluate:evaluate_job",
    "import": "jobs.imports.run:import_products",
    "plan": "jobs.upgrade.plan:plan",
    "promote": "jobs.upgrade.promote:promote",
    "rollback": "jobs.upgrade.promote:rollback",
    "prune": "jobs.upgrade.prune:prune",
    "prune_files": "jobs.upgrade.prune:prune_files",
    "verify": "jobs.verification.verify:verify",
    "adopt": "jobs.verification.verify:adopt",
}
"""Function of each kind; a job imports only its own."""

_WITHOUT_RAY = {"import", "prune_files", "adopt"}
logger = logging.getLogger(__name__)
_TEXT_FORMAT = "%(asctime)s %(name)s %(levelname)s %(request_id)s %(message)s"


def work_of(kind: str) -> Work:
    """Return the function of this kind of job; its return value becomes the job's result."""
    module, _, name = _FUNCTIONS[kind].partition(":")
    work: Work = getattr(import_module(module), name)
    return work


def needs_ray(kind: str) -> bool:
    """Return whether this kind of job runs on a cluster; others run in their process."""
    return kind not in _WITHOUT_RAY


def start_log() -> None:
    """Log lines of text, until the service's own format is known."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_TEXT_FORMAT, defaults={"request_id": "-"}))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)


@contextmanager
def logging_for(job_id: str, encoding: str) -> Iterator[None]:
    """Log the block's lines, and send its calls to Milvus, under the id of the request that started the job.

    A job from a shell uses its own id. `encoding` is `JSON` or `TEXT`.
    """
    with answering(current_request_id() or job_id):
        identified = _Identified(current_request_id(), job_id)
        handlers = logging.getLogger().handlers
        for handler in handlers:
            handler.addFilter(identified)
            if encoding == "JSON":
                handler.setFormatter(_json())
        try:
            with _logged(job_id):
                yield
        finally:
            for handler in handlers:
                handler.removeFilter(identified)


@contextmanager
def _logged(job_id: str) -> Iterator[None]:
    logger.info("job %s begins", job_id)
    started, status = time.monotonic(), "ok"
    try:
        yield
    except BaseException as error:
        status = type(error).__name__
        raise
    finally:
        ms = round((time.monotonic() - started) * 1e3)
        extra = {"status": status, "ms": ms}
        logger.info("job %s ends after %.1f s: %s", job_id, ms / 1e3, status, extra=extra)


class _Identified(logging.Filter):
    """Adds the ids of the request and the job to the lines of all threads."""

    def __init__(self, request_id: str, job_id: str) -> None:
        super().__init__()
        self._facts = {"request_id": request_id, "job_id": job_id}

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids to a line."""
        vars(record).update(self._facts)
        return True


def _json() -> logging.Formatter:
    # Serve's own formatter, so that collectors read both alike. Imported here, since it loads Ray.
    from ray._common.formatters import JSONFormatter

    formatter: logging.Formatter = JSONFormatter()
    return formatter


def start(kind: str, args: Mapping[str, Any], config: Path | None, address: str | None) -> None:
    """Register a job and run it in this process; arguments that are None are left out."""
    given = {name: value for name, value in args.items() if value is not None}
    try:
        checked = KINDS[kind].model_validate(given).model_dump(mode="json", exclude_defaults=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInput(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    work(lambda catalog: take_up(catalog.jobs, kind, checked), config, address, at_shell=True)


def work(
    hold: Callable[[Catalog], JobRun], config: Path | None, address: str | None, at_shell: bool = False
) -> None:
    """Run the job that `hold` begins, and print its result; raises as the job does."""
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
    settings = running_settings() if config is None else settings_of_file(config)
    catalog = open_catalog(settings.catalog)
    try:
        with hold(catalog) as running, logging_for(running.job.job_id, settings.log_encoding):
            result = _result(JobContext(running, settings, catalog, at_shell), address)
        typer.echo(json.dumps({"job_id": running.job.job_id, **result}, indent=2))
    finally:
        catalog.close()


def _result(context: JobContext, address: str | None) -> Mapping[str, Any]:
    running = context.run
    kind, args = running.job.kind, KINDS[running.job.kind].model_validate(running.job.args)
    with _cluster(address) if needs_ray(kind) else nullcontext():
        running.result = work_of(kind)(context, args)
    return running.result


def _cluster(address: str | None) -> AbstractContextManager[None]:
    from jobs.runner.cluster import connected

    return connected(address)
