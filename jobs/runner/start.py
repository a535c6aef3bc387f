"""Run a job in this process: look up its kind, log under its request id, and record its end."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catalog.opening import Catalog, open_catalog
from core.errors import InvalidInput, VitrineError
from core.jobs import KINDS, Job, Progress
from core.telemetry import answering, current_request_id
from jobs.runner.context import JobContext, JobRun, take_up
from jobs.runner.settings import Settings, first_error, running_settings, settings_of_file

logger = logging.getLogger(__name__)

Work = Callable[[JobContext, Any], dict[str, Any]]
"""Function of a kind of job; it takes the arguments that `core.jobs.KINDS` has for the kind."""

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
_ON_THE_SERVICE = {"promote", "rollback", "prune"}
"""Kinds that ask replicas which version they serve, so they join the cluster of the service."""

_TEXT_FORMAT = "%(asctime)s %(name)s %(levelname)s %(request_id)s %(message)s"


def work_of(kind: str) -> Work:
    """Return the function of this kind of job; it returns the job's result."""
    module, _, name = _FUNCTIONS[kind].partition(":")
    work: Work = getattr(import_module(module), name)
    return work


def start_log() -> None:
    """Log text to stderr, until the configuration says how the service logs."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_TEXT_FORMAT, defaults={"request_id": "-"}))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)


@contextmanager
def logging_for(job_id: str, encoding: str) -> Iterator[None]:
    """Log the job in this block under the id of the request that asked for it, in calls to Milvus too.

    A job of a shell logs under its own id. `encoding` is `JSON` or `TEXT`.
    """
    with answering(current_request_id() or job_id):
        identified = _Identified(current_request_id(), job_id)
        handlers = logging.getLogger().handlers
        for handler in handlers:
            handler.addFilter(identified)
            if encoding == "JSON":
                handler.setFormatter(_json())
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
            for handler in handlers:
                handler.removeFilter(identified)


class _Identified(logging.Filter):
    """Adds the ids to the lines of every thread: a process runs one job only."""

    def __init__(self, request_id: str, job_id: str) -> None:
        super().__init__()
        self._facts = {"request_id": request_id, "job_id": job_id}

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids to a line and let it pass."""
        vars(record).update(self._facts)
        return True


def _json() -> logging.Formatter:
    # Serve's formatter, so that a collector reads both alike. It loads Ray.
    from ray._common.formatters import JSONFormatter

    formatter: logging.Formatter = JSONFormatter()
    return formatter


def prepare_process() -> None:
    """Start the log, and set what Ray reads from the environment when it is imported."""
    if not logging.getLogger().handlers:
        start_log()
    # Ray makes and uses a token of its own accord unless the mode is set.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def run_here(
    kind: str,
    args: Mapping[str, Any],
    config: Path | None,
    address: str | None,
    watch: Callable[[Progress], None] | None = None,
) -> Job:
    """Register a job of a shell, run it in this process, and return its record, also if it has failed.

    `watch` is called with the progress whenever that changes.

    An error that is not ours is logged with its traceback; the record holds its name only.

    Raises:
        InvalidInput: an argument is wrong.
        Conflict: a living job does the same.
        ConfigError: the configuration is wrong.
        Unavailable: the running service or the database is away.
    """
    try:
        checked = KINDS[kind].model_validate(args).model_dump(mode="json", exclude_defaults=True)
    except ValidationError as error:
        raise InvalidInput(first_error(error)) from None
    if kind in _ON_THE_SERVICE and address is None:
        address = os.environ.get("RAY_ADDRESS", "auto")
    with opened(config, address) as (settings, catalog):
        running = take_up(catalog.jobs, kind, checked, watch)
        job_id = running.job.job_id
        try:
            _work(running, settings, catalog, address, at_shell=True)
        except Exception as error:
            job = catalog.jobs.get(job_id)
            if job.finished_at is None:
                raise
            if not isinstance(error, VitrineError):
                logger.error("job %s has failed", job_id, exc_info=error)
            return job
        return catalog.jobs.get(job_id)


def work(hold: Callable[[Catalog], JobRun], config: Path | None, address: str | None) -> Job:
    """Run the job that `hold` takes up, and return its record; raises as the job does."""
    with opened(config, address) as (settings, catalog):
        running = hold(catalog)
        _work(running, settings, catalog, address)
        return catalog.jobs.get(running.job.job_id)


def _work(
    run: JobRun, settings: Settings, catalog: Catalog, address: str | None, at_shell: bool = False
) -> None:
    with run as running, logging_for(running.job.job_id, settings.log_encoding):
        context = JobContext(running, settings, catalog, at_shell)
        kind, args = running.job.kind, KINDS[running.job.kind].model_validate(running.job.args)
        with _cluster(kind, address, settings):
            running.result = work_of(kind)(context, args)


@contextmanager
def opened(config: Path | None, address: str | None = None) -> Iterator[tuple[Settings, Catalog]]:
    """Read a Serve configuration, or without a file that of the service at `address`, and open its catalog.

    Raises:
        ConfigError: the configuration is wrong.
        Unavailable: the running service or the database is away.
    """
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
    settings = running_settings() if config is None else settings_of_file(config)
    catalog = open_catalog(settings.catalog)
    try:
        yield settings, catalog
    finally:
        catalog.close()


def _cluster(kind: str, address: str | None, settings: Settings) -> AbstractContextManager[None]:
    if kind in _WITHOUT_RAY:
        return nullcontext()
    from jobs.runner.cluster import connected

    return connected(address, {name for each in settings.encoders.values() for name in each.node_kind})
