"""`python -m jobs`: bulk work from a shell, and what Ray starts for a job of the API."""

import os
from typing import Annotated

import typer

from core.errors import VitrineError
from core.telemetry import answering
from jobs.commands import Address, ConfigFile, add_build_commands, add_import_commands, add_upgrade_commands
from jobs.runner.context import JobRun
from jobs.runner.start import start_log, work

app = typer.Typer(no_args_is_help=True, help="Bulk work on the catalog.", pretty_exceptions_enable=False)
add_build_commands(app)


@app.command()
def run(
    job_id: str,
    config: ConfigFile = None,
    address: Address = None,
    request_id: Annotated[str, typer.Option(help="Id of the request that has asked for it.")] = "",
) -> None:
    """Do a job that is registered in the catalog's database, as one of the API is."""
    with answering(request_id):
        work(lambda catalog: JobRun(catalog.jobs, catalog.jobs.begin(job_id)), config, address)


add_upgrade_commands(app)
add_import_commands(app)


def main() -> None:
    """Run a command; an error of ours is one message and exit code 2."""
    start_log()
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
