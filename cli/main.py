"""`vitrine`: the command line."""

from pathlib import Path
from typing import Annotated

import typer

from cli import (
    backup,
    comparison,
    configuration,
    embedding,
    importing,
    jobs,
    keys,
    products,
    search,
    status,
    upgrade,
)
from cli.exits import exit_of_own
from core.errors import VitrineError

app = typer.Typer(
    no_args_is_help=True, help="Visual search for product catalogues.", pretty_exceptions_enable=False
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
    from cli.serving import run

    run(config, host, port)


app.command("search")(search.search)
app.command("compare")(comparison.compare)
app.command("embed")(embedding.embed)
app.command("caption")(embedding.caption)
app.add_typer(products.app, name="products")
app.command("import")(importing.import_products)
app.command("models")(status.models)
app.command("gaps")(status.gaps)
app.command("stats")(status.stats)
app.command("ready")(status.ready)
app.command("plan")(upgrade.plan)
app.command("build")(upgrade.build)
app.command("sample")(upgrade.sample)
app.command("evaluate")(upgrade.evaluate)
app.command("promote")(upgrade.promote)
app.command("rollback")(upgrade.rollback)
app.command("prune")(upgrade.prune)
app.command("verify")(upgrade.verify)
app.command("adopt")(upgrade.adopt)
app.command("backup")(backup.backup)
app.command("backups")(backup.backups)
app.command("restore")(backup.restore)
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(configuration.app, name="config")


def main() -> None:
    """Run the command line; an error of ours is one message and an exit code."""
    try:
        app()
    except VitrineError as error:
        typer.echo(error.message, err=True)
        raise SystemExit(exit_of_own(error)) from None


if __name__ == "__main__":
    main()
