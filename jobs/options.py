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


def candidate_args(
    checkpoint: str | None,
    pretrained: str | None,
    revision: str | None,
    precision: str | None,
    pooling: str | None,
) -> dict[str, str | None]:
    """The fields in which a candidate may differ from the configured encoder; None where it does not."""
    return {
        "checkpoint": checkpoint,
        "pretrained": pretrained,
        "revision": revision,
        "precision": precision,
        "pooling": pooling,
    }
