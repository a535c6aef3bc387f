"""A job done in this process: registered, its cluster joined, its end recorded and printed."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from catalog.opening import Catalog, open_catalog
from core.errors import InvalidInput
from core.jobs import KINDS
from jobs.context import JobContext
from jobs.kinds import needs_ray, work_of
from jobs.log import logging_for
from jobs.run import JobRun, take_up
from jobs.settings import running_settings, settings_of_file


def start(kind: str, args: Mapping[str, Any], config: Path | None, address: str | None) -> None:
    """Register a job and do it in this process; arguments that are None are left out."""
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
    """Do the job that `hold` takes up, and print what it came to; raises as the job does."""
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
    from jobs.cluster import connected

    return connected(address)
