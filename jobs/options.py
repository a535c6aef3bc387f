"""Options that several commands of `python -m jobs` share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", exists=True, dir_okay=False, help="Serve configuration; default: what runs."),
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to work on; default: that of RAY_ADDRESS, or an own one."),
]
Model = Annotated[str, typer.Option(help="A configured encoder.")]
Field = Annotated[str | None, typer.Option(help="Of a candidate, in place of what is configured.")]
