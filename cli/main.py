"""`vitrine`: the command line."""

from pathlib import Path
from typing import Annotated

import typer

from core.errors import VitrineError

app = typer.Typer(no_args_is_help=True, help="Visual search for product catalogues.")
config_app = typer.Typer(no_args_is_help=True, help="Look at configurations.")
app.add_typer(config_app, name="config")

ConfigFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A Serve configuration.")]


@app.command()
def serve(
    config: ConfigFile,
    host: Annotated[str | None, typer.Option(help="Listen here instead of where the file says.")] = None,
    port: Annotated[int | None, typer.Option(help="Listen on this port instead of the file's.")] = None,
) -> None:
    """Run the service in the foreground, on a Ray of its own, until interrupted."""
    from cli.serving import run

    run(config, host, port)


@config_app.command("check")
def check(config: ConfigFile) -> None:
    """Check a Serve configuration and name each mistake."""
    from deployments.serve_file import read_serve_file

    read_serve_file(config)
    typer.echo(f"{config}: no mistakes")


def main() -> None:
    """Run the command line; an error of ours is one message and exit code 2."""
    try:
        app()
    except VitrineError as error:
        typer.echo(error.message, err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
