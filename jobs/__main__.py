"""`python -m jobs run ID`: the process that Ray starts for a job of the API."""

import json
from pathlib import Path
from typing import Annotated

import typer

from core.errors import VitrineError
from core.telemetry import answering
from jobs.runner.context import JobRun
from jobs.runner.start import prepare_process, work

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _commands() -> None:
    """Run jobs of the API; `vitrine … --local` runs those of a shell."""


@app.command()
def run(
    job_id: str,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Serve configuration; default: the running one."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster; default: that of RAY_ADDRESS.")] = None,
    request_id: Annotated[str, typer.Option(help="Id of the request that submitted the job.")] = "",
) -> None:
    """Run a job that is registered in the catalog's database, and print its result."""
    with answering(request_id):
        job = work(lambda catalog: JobRun(catalog.jobs, catalog.jobs.begin(job_id)), config, address)
    typer.echo(json.dumps({"job_id": job.job_id, **(job.result or {})}, indent=2))


def main() -> None:
    """Run a command; an error of ours is one message and exit code 2."""
    prepare_process()
    try:
        app()
    except VitrineError as error:
        typer.echo(error.message, err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
