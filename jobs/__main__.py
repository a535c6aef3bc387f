"""`python -m jobs`: bulk work from a shell, and what Ray starts for a job of the API."""

import os
from typing import Annotated

import typer

from core.errors import VitrineError
from core.request_ids import answering
from jobs.build_commands import add_build_commands
from jobs.import_commands import add_import_commands
from jobs.log import start_log
from jobs.options import Address, ConfigFile
from jobs.run import JobRun
from jobs.starting import work
from jobs.upgrade_commands import add_upgrade_commands

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
