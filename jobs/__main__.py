"""`python -m jobs`: bulk work from a shell, and what Ray starts for a job of the API."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from catalog.opening import Catalog, open_catalog
from core.errors import InvalidInput, VitrineError
from core.jobs import KINDS
from jobs.context import JobContext
from jobs.evaluate_command import comparison_args
from jobs.import_commands import add_import_commands
from jobs.kinds import needs_ray, work_of
from jobs.options import Address, ConfigFile, Field, Model
from jobs.run import JobRun, take_up
from jobs.settings import running_settings, settings_of_file
from jobs.upgrade_commands import add_upgrade_commands

app = typer.Typer(no_args_is_help=True, help="Bulk work on the catalog.", pretty_exceptions_enable=False)


@app.command()
def build(
    model: Model,
    config: ConfigFile = None,
    checkpoint: Field = None,
    pretrained: Field = None,
    revision: Field = None,
    precision: Field = None,
    pooling: Field = None,
    address: Address = None,
) -> None:
    """Fill the collection of a model's version; goes on where an earlier build has ended or died."""
    candidate = _candidate(checkpoint, pretrained, revision, precision, pooling)
    start("build", {"model": model, **candidate}, config, address)


@app.command()
def sample(
    model: Model,
    percent: Annotated[float, typer.Option(help="Share of the pictures.")] = 5.0,
    config: ConfigFile = None,
    checkpoint: Field = None,
    pretrained: Field = None,
    revision: Field = None,
    precision: Field = None,
    pooling: Field = None,
    address: Address = None,
) -> None:
    """Build a share of a collection and predict how long the whole takes."""
    candidate = _candidate(checkpoint, pretrained, revision, precision, pooling)
    start("sample", {"model": model, "percent": percent, **candidate}, config, address)


@app.command()
def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A configured encoder to compare; default: all with a collection."),
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(help="Model whose candidate is compared with it and judged by the gate.")
    ] = None,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(help='As JSON: {"name", "weights", "fusion"}; default: the configured.'),
    ] = None,
    queries: Annotated[str | None, typer.Option(help="Table of labelled queries.")] = None,
    sample: Annotated[int | None, typer.Option(help="Pictures to change where no labels are.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the drawing and the intervals.")] = None,
    config: ConfigFile = None,
    checkpoint: Field = None,
    pretrained: Field = None,
    revision: Field = None,
    precision: Field = None,
    pooling: Field = None,
    address: Address = None,
) -> None:
    """Compare models and ensembles on labelled queries, or on changed pictures of the catalog."""
    changes = _candidate(checkpoint, pretrained, revision, precision, pooling)
    args = comparison_args(candidate, changes, ensemble or [], queries)
    start("evaluate", {"models": model, "sample": sample, "seed": seed, **args}, config, address)


@app.command()
def report(job_id: str, folder: Path, config: ConfigFile = None) -> None:
    """Write the report of an evaluation, and each query's values, into a folder."""
    from jobs.evaluation.files import copy_files

    settings = running_settings() if config is None else settings_of_file(config)
    catalog = open_catalog(settings.catalog)
    try:
        for path in copy_files(job_id, catalog, folder):
            typer.echo(path)
    finally:
        catalog.close()


@app.command()
def run(job_id: str, config: ConfigFile = None, address: Address = None) -> None:
    """Do a job that is registered in the catalog's database, as one of the API is."""
    _work(lambda catalog: JobRun(catalog.jobs, catalog.jobs.begin(job_id)), config, address)


def _candidate(
    checkpoint: str | None,
    pretrained: str | None,
    revision: str | None,
    precision: str | None,
    pooling: str | None,
) -> dict[str, str | None]:
    return {
        "checkpoint": checkpoint,
        "pretrained": pretrained,
        "revision": revision,
        "precision": precision,
        "pooling": pooling,
    }


def start(kind: str, args: Mapping[str, Any], config: Path | None, address: str | None) -> None:
    """Register a job and do it in this process; arguments that are None are left out."""
    given = {name: value for name, value in args.items() if value is not None}
    try:
        checked = KINDS[kind].model_validate(given).model_dump(mode="json", exclude_defaults=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInput(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    _work(lambda catalog: take_up(catalog.jobs, kind, checked), config, address, at_shell=True)


def _work(
    hold: Callable[[Catalog], JobRun], config: Path | None, address: str | None, at_shell: bool = False
) -> None:
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
    settings = running_settings() if config is None else settings_of_file(config)
    catalog = open_catalog(settings.catalog)
    try:
        with hold(catalog) as running:
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


add_upgrade_commands(app, start)
add_import_commands(app, start)


def main() -> None:
    """Run a command; an error of ours is one message and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Ray makes and uses a token of its own accord unless the mode is said.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        app()
    except VitrineError as error:
        typer.echo(error.message, err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
