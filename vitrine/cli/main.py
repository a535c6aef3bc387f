"""Command line `vitrine`."""

from pathlib import Path
from typing import Annotated

import typer

from core.errors import VitrineError
from vitrine.cli import admin, configuration, jobs, products, search, upgrade
from vitrine.cli.service import exit_of_own

app = typer.Typer(
    no_args_is_help=True, help="Visual search for product catalogs.", pretty_exceptions_enable=False
)

ConfigFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A Serve configuration.")]


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
    """Take the options that stand before a command."""


@app.command()
def serve(
    config: ConfigFile,
    host: Annotated[str | None, typer.Option(help="Listen here instead of where the file says.")] = None,
    port: Annotated[int | None, typer.Option(help="Listen on this port instead of the file's.")] = None,
) -> None:
    """Run the service in the foreground, on a Ray of its own, until interrupted."""
    from vitrine.cli.serving import run

    run(config, host, port)


app.command("search")(search.search)
app.command("compare")(search.compare)
app.command("embed")(search.embed)
app.command("caption")(search.caption)
app.add_typer(products.app, name="products")
app.command("import")(products.import_products)
app.command("models")(admin.models)
app.command("gaps")(admin.gaps)
app.command("stats")(admin.stats)
app.command("ready")(admin.ready)
app.command("plan")(upgrade.plan)
app.command("build")(upgrade.build)
app.command("sample")(upgrade.sample)
app.command("evaluate")(upgrade.evaluate)
app.command("promote")(upgrade.promote)
app.command("rollback")(upgrade.rollback)
app.command("prune")(upgrade.prune)
app.command("verify")(upgrade.verify)
app.command("adopt")(upgrade.adopt)
app.command("backup")(configuration.backup)
app.command("backups")(configuration.backups)
app.command("restore")(configuration.restore)
app.add_typer(jobs.app, name="jobs")
app.add_typer(admin.keys_app, name="keys")
app.add_typer(configuration.config_app, name="config")


def main() -> None:
    """Run the command line; an error of ours is one message and an exit code."""
    try:
        app()
    except VitrineError as error:
        typer.echo(error.message, err=True)
        raise SystemExit(exit_of_own(error)) from None


if __name__ == "__main__":
    main()
