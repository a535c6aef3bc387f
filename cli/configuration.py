"""`vitrine config`: looking at Serve configurations."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.exits import Exit

app = typer.Typer(no_args_is_help=True, help="Look at configurations.")


@app.command("check")
def check(
    configs: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Serve configurations.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of sentences.")] = False,
) -> None:
    """Name each mistake of Serve configurations: where, what is wrong, and what would be right.

    The form of a file is checked first, then each application, then what they say together: a file is told
    the mistakes of the first of these that finds any, so that what is mended may bring others to light.

    Exit code 7 where there are mistakes; 8 where there are none but variables of the environment are not
    set that a file refers to, for then the values beside them could not be checked.
    """
    from deployments.serve_file import check_serve_file

    found = {config: check_serve_file(config) for config in configs}
    mistakes = [mistake for each in found.values() for mistake in each]
    if as_json:
        typer.echo(json.dumps([mistake.told() for mistake in mistakes], indent=2, ensure_ascii=False))
    else:
        for mistake in mistakes:
            typer.echo(str(mistake), err=True)
        for config in (config for config, each in found.items() if not each):
            typer.echo(f"{config}: no mistakes")
    if mistakes:
        raise typer.Exit(Exit.UNSET if all(each.unset for each in mistakes) else Exit.MISCONFIGURED)
