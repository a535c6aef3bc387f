"""Command line `vitrine`."""

import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from vitrine.cli import admin, configuration, jobs, products, search, serving, trying, upgrade
from vitrine.cli.service import Exit, exit_of

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"vitrine {version('vitrine')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Visual search for product catalogs.

    Most commands call a running service over its HTTP API. Its address and an API key come from `--url` and
    `--key`, or from VITRINE_URL and VITRINE_KEY. `serve`, `try`, `config check`, `backup`, `backups`, `restore` and
    jobs with `--local` need no running service. `--json` prints JSON instead of tables. Tables are neither cut nor
    wrapped if the output is not a terminal. An error is one message on standard error.

    Commands for bulk work submit a job and follow it to its end. On a terminal they show a progress bar. Ctrl-C
    stops following, and the job continues. With `--cancel-on-interrupt`, Ctrl-C cancels the job. With `--detach`
    the command does not follow the job. `vitrine jobs wait` follows it later.

    With `--local` the job runs in the process of the command, as in `vitrine build --model dinov2 --local
    --config serve_config.yaml`. The process must reach the service's database and Milvus. `--config` is the Serve
    configuration, by default the running one. The variables that it refers to must be set in the shell.
    Arguments, results and exit codes are the same as without `--local`.

    `--address` is the Ray cluster of a job with `--local`. The default is the cluster of RAY_ADDRESS, or else a
    new one. `promote`, `rollback` and `prune` need the cluster of the service.

    Exit codes:

    - 0: done, or with `--detach` submitted
    - 1: the service or a job failed, or a job was canceled
    - 2: the command or its arguments are wrong, or the packages of the service that it needs are not installed
    - 3: a product, job, model or other thing that the command names does not exist
    - 4: the service, a model, or a server behind a URL is down or busy: try again later
    - 5: the quality gate refuses the candidate, a verification finds differences that remain, the command
      conflicts with what is stored (such as an equal job that runs), or a backup lacks image files
    - 6: the API key is missing, unknown, or lacks the scope
    - 7: a configuration is wrong; `vitrine config check` lists the mistakes
    - 8: `vitrine config check` finds no mistake, but the file refers to variables that are not set, so values
      with them were not checked
    - 130: interrupted by Ctrl-C
    """


for command in (serving.serve, search.search, search.compare, search.embed, search.caption):
    app.command()(command)
app.command("try")(trying.try_images)
app.command("import")(products.import_products)
for command in (
    *(admin.models, admin.gaps, admin.stats, admin.ready),
    *(upgrade.plan, upgrade.build, upgrade.sample, upgrade.evaluate, upgrade.promote, upgrade.rollback),
    *(upgrade.prune, upgrade.verify, upgrade.adopt),
    *(configuration.backup, configuration.backups, configuration.restore),
):
    app.command()(command)
app.add_typer(products.app, name="products")
app.add_typer(jobs.app, name="jobs")
app.add_typer(admin.keys_app, name="keys")
app.add_typer(configuration.config_app, name="config")


def main() -> None:
    """Run the command line; print an error of Vitrine's as one message, with its exit code."""
    try:
        app()
    except ModuleNotFoundError as error:
        if not error.name or find_spec(error.name.partition(".")[0]) is not None:
            raise
        typer.echo(_NO_SERVICE.format(error.name), err=True)
        raise SystemExit(Exit.USAGE) from None
    except Exception as error:
        # Whoever raises an error of the service's packages has imported them; the client alone has none.
        core = sys.modules.get("core.errors")
        if core is None or not isinstance(error, core.VitrineError):
            raise
        typer.echo(error.message, err=True)
        raise SystemExit(exit_of(error)) from None


_NO_SERVICE = (
    "This command works in this process and needs the packages of the service, of which {!r} is not installed. "
    "Use Vitrine's image, or install a checkout of Vitrine: pip install --editable '.[server]'"
)


if __name__ == "__main__":
    main()
