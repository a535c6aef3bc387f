"""The commands of `python -m jobs` that fill collections and compare models."""

from pathlib import Path
from typing import Annotated

import typer

from catalog.opening import open_catalog
from jobs.evaluate_command import comparison_args
from jobs.options import Address, ConfigFile, Field, Model, candidate_args
from jobs.settings import running_settings, settings_of_file
from jobs.starting import start


def add_build_commands(app: typer.Typer) -> None:
    """Add `build`, `sample`, `evaluate` and `report`."""

    @app.command()
    def build(
        model: Model,
        config: ConfigFile = None,
        checkpoint: Field = None,
        pretrained: Field = None,
        revision: Field = None,
        precision: Field = None,
        pooling: Field = None,
        address: Address = None,
    ) -> None:
        """Fill the collection of a model's version; goes on where an earlier build has ended or died."""
        candidate = candidate_args(checkpoint, pretrained, revision, precision, pooling)
        start("build", {"model": model, **candidate}, config, address)

    @app.command()
    def sample(
        model: Model,
        percent: Annotated[float, typer.Option(help="Share of the pictures.")] = 5.0,
        config: ConfigFile = None,
        checkpoint: Field = None,
        pretrained: Field = None,
        revision: Field = None,
        precision: Field = None,
        pooling: Field = None,
        address: Address = None,
    ) -> None:
        """Build a share of a collection and predict how long the whole takes."""
        candidate = candidate_args(checkpoint, pretrained, revision, precision, pooling)
        start("sample", {"model": model, "percent": percent, **candidate}, config, address)

    @app.command()
    def evaluate(
        model: Annotated[
            list[str] | None,
            typer.Option(help="A configured encoder to compare; default: all with a collection."),
        ] = None,
        candidate: Annotated[
            str | None, typer.Option(help="Model whose candidate is compared with it and judged by the gate.")
        ] = None,
        ensemble: Annotated[
            list[str] | None,
            typer.Option(help='As JSON: {"name", "weights", "fusion"}; default: the configured.'),
        ] = None,
        queries: Annotated[str | None, typer.Option(help="Table of labelled queries.")] = None,
        sample: Annotated[int | None, typer.Option(help="Pictures to change where no labels are.")] = None,
        seed: Annotated[int | None, typer.Option(help="Of the drawing and the intervals.")] = None,
        config: ConfigFile = None,
        checkpoint: Field = None,
        pretrained: Field = None,
        revision: Field = None,
        precision: Field = None,
        pooling: Field = None,
        address: Address = None,
    ) -> None:
        """Compare models and ensembles on labelled queries, or on changed pictures of the catalog."""
        changes = candidate_args(checkpoint, pretrained, revision, precision, pooling)
        args = comparison_args(candidate, changes, ensemble or [], queries)
        start("evaluate", {"models": model, "sample": sample, "seed": seed, **args}, config, address)

    @app.command()
    def report(job_id: str, folder: Path, config: ConfigFile = None) -> None:
        """Write the report of an evaluation, and each query's values, into a folder."""
        from jobs.evaluation.files import copy_files

        settings = running_settings() if config is None else settings_of_file(config)
        catalog = open_catalog(settings.catalog)
        try:
            for path in copy_files(job_id, catalog, folder):
                typer.echo(path)
        finally:
            catalog.close()
