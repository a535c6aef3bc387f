"""Commands of `python -m jobs`: build, evaluate, upgrade, verify and import, with their options."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.imports import RowError, SqlImports
from catalog.opening import open_catalog
from core.errors import InvalidInput
from jobs.runner.settings import running_settings, settings_of_file
from jobs.runner.start import start

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


def comparison_args(
    candidate: str | None,
    changes: Mapping[str, str | None],
    ensembles: Sequence[str],
    queries: str | None,
) -> dict[str, Any]:
    """Put together what a shell names one by one.

    Raises:
        InvalidInput: an ensemble is not a JSON object, or there are changes of no candidate.
    """
    changed = {name: value for name, value in changes.items() if value is not None}
    if changed and candidate is None:
        raise InvalidInput(f"--{next(iter(changed))} is of a candidate; name its model with --candidate")
    return {
        "candidate": None if candidate is None else {"model": candidate, **changed},
        "ensembles": [_ensemble(text) for text in ensembles],
        "queries": str(Path(queries).resolve()) if queries and Path(queries).exists() else queries,
    }


def _ensemble(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput('an ensemble is a JSON object such as {"weights": {"openclip": 1, "dinov2": 0.5}}')
    return found


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
        percent: Annotated[float, typer.Option(help="Share of the images.")] = 5.0,
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
        queries: Annotated[str | None, typer.Option(help="Table of labeled queries.")] = None,
        sample: Annotated[int | None, typer.Option(help="Images to change where no labels are.")] = None,
        seed: Annotated[int | None, typer.Option(help="Of the drawing and the intervals.")] = None,
        config: ConfigFile = None,
        checkpoint: Field = None,
        pretrained: Field = None,
        revision: Field = None,
        precision: Field = None,
        pooling: Field = None,
        address: Address = None,
    ) -> None:
        """Compare models and ensembles on labeled queries, or on changed images of the catalog."""
        changes = candidate_args(checkpoint, pretrained, revision, precision, pooling)
        args = comparison_args(candidate, changes, ensemble or [], queries)
        start("evaluate", {"models": model, "sample": sample, "seed": seed, **args}, config, address)

    @app.command()
    def report(job_id: str, folder: Path, config: ConfigFile = None) -> None:
        """Write the report of an evaluation, and each query's values, into a folder."""
        from jobs.evaluation.report import copy_files

        settings = running_settings() if config is None else settings_of_file(config)
        catalog = open_catalog(settings.catalog)
        try:
            for path in copy_files(job_id, catalog, folder):
                typer.echo(path)
        finally:
            catalog.close()


Apply = Annotated[
    bool,
    typer.Option(help="Change the running configuration, or tell the change and wait for it to be made."),
]
ServiceAddress = Annotated[
    str, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster of the service; default: that of this machine.")
]
Wait = Annotated[float, typer.Option("--wait-s", help="How long to wait for the replicas, in seconds.")]


def add_upgrade_commands(app: typer.Typer) -> None:
    """Add `plan`, `promote`, `rollback`, `prune`, `verify` and `adopt`."""

    @app.command()
    def plan(
        model: Model,
        percent: Annotated[float, typer.Option(help="Share of the images to measure by.")] = 2.0,
        config: ConfigFile = None,
        checkpoint: Field = None,
        pretrained: Field = None,
        revision: Field = None,
        precision: Field = None,
        pooling: Field = None,
        address: Address = None,
    ) -> None:
        """Say what a candidate would change, what it lacks and how long its build takes; write nothing."""
        candidate = candidate_args(checkpoint, pretrained, revision, precision, pooling)
        start("plan", {"model": model, "percent": percent, **candidate}, config, address)

    @app.command()
    def promote(
        model: Model,
        force: Annotated[
            str | None, typer.Option(help="Why to promote it whatever the evaluation says.")
        ] = None,
        apply: Apply = True,
        wait_s: Wait = 1800.0,
        config: ConfigFile = None,
        checkpoint: Field = None,
        pretrained: Field = None,
        revision: Field = None,
        precision: Field = None,
        pooling: Field = None,
        address: ServiceAddress = "auto",
    ) -> None:
        """Let a built candidate take over from the live version, without an hour of downtime."""
        candidate = candidate_args(checkpoint, pretrained, revision, precision, pooling)
        args = {"model": model, "apply": apply, "wait_s": wait_s, "force": force, **candidate}
        start("promote", args, config, address)

    @app.command()
    def rollback(
        model: Model,
        to: Annotated[str | None, typer.Option(help="Fingerprint; default: the version before.")] = None,
        apply: Apply = True,
        wait_s: Wait = 1800.0,
        config: ConfigFile = None,
        address: ServiceAddress = "auto",
    ) -> None:
        """Go back to the version that was live before, brought up to date first."""
        start("rollback", {"model": model, "to": to, "apply": apply, "wait_s": wait_s}, config, address)

    @app.command()
    def prune(
        model: Annotated[
            str | None, typer.Option(help="A configured encoder, of which versions are dropped.")
        ] = None,
        keep: Annotated[int, typer.Option(help="Earlier versions to keep, the latest first.")] = 1,
        files: Annotated[
            bool,
            typer.Option("--files", help="Remove image files that no product names, instead of versions."),
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Only say what would be dropped or removed.")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
        config: ConfigFile = None,
        address: ServiceAddress = "auto",
    ) -> None:
        """Drop the collections of versions that nobody goes back to, or image files that no product names."""
        if files == (model is not None):
            raise typer.BadParameter("say either --model or --files", param_hint="--model")
        kind, args = ("prune_files", {}) if files else ("prune", {"model": model, "keep": keep})
        if dry_run or not yes:
            start(kind, {**args, "dry_run": True}, config, address)
            if dry_run:
                return
            question = "Remove these files for good?" if files else "Drop these collections?"
            typer.confirm(question, abort=True, err=True)
        start(kind, args, config, address)

    @app.command()
    def verify(
        model: Annotated[str | None, typer.Option(help="A configured encoder; default: all.")] = None,
        percent: Annotated[float, typer.Option(help="Share of the images to encode anew.")] = 5.0,
        seed: Annotated[int | None, typer.Option(help="Of the drawing; default: another each time.")] = None,
        repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,
        config: ConfigFile = None,
        address: Address = None,
    ) -> None:
        """Compare catalog, ledger and Milvus, list each difference, and repair on request."""
        args = {"model": model, "percent": percent, "seed": seed, "repair": repair}
        start("verify", args, config, address)

    @app.command()
    def adopt(
        keep_index: Annotated[
            bool, typer.Option("--keep-index", help="Believe the ledger: the collections are there.")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
        config: ConfigFile = None,
        address: Address = None,
    ) -> None:
        """Confirm that the former Milvus is lost: the configured one takes its place."""
        if not yes:
            typer.confirm("Take the configured Milvus in the place of the former?", abort=True, err=True)
        start("adopt", {"keep_index": keep_index}, config, address)


_PAGE = 1000


def add_import_commands(app: typer.Typer) -> None:
    """Add `import` and `import-errors`."""

    @app.command("import")
    def import_products(
        location: Annotated[str, typer.Argument(help="A folder, a manifest, or the URL of a catalog.")],
        options: Annotated[
            str | None,
            typer.Option(help='More of the source as JSON, such as {"fields": {"product_id": "sku"}}.'),
        ] = None,
        config: ConfigFile = None,
        ask_again: Annotated[
            bool, typer.Option(help="Ask servers whether images that are known have changed.")
        ] = True,
        delete_missing: Annotated[
            bool, typer.Option(help="Delete what this source has delivered before and does so no more.")
        ] = False,
        max_delete_percent: Annotated[float, typer.Option(help="Share above which none is deleted.")] = 10.0,
    ) -> None:
        """Take products over from a source; goes on where an earlier import has died."""
        args = {
            "source": described(location, options),
            "ask_again": ask_again,
            "delete_missing": delete_missing,
            "max_delete_percent": max_delete_percent,
        }
        start("import", args, config, None)

    @app.command("import-errors")
    def import_errors(job_id: str, config: ConfigFile = None) -> None:
        """Print what was wrong with the rows of an import, one JSON object a line."""
        settings = running_settings() if config is None else settings_of_file(config)
        catalog = open_catalog(settings.catalog)
        try:
            for each in every_error(catalog.imports, job_id):
                typer.echo(json.dumps(asdict(each), ensure_ascii=False))
        finally:
            catalog.close()


def described(location: str, options: str | None) -> dict[str, Any]:
    """Describe a source by its place: a URL is a remote catalog, a file a manifest, all else a folder.

    Raises:
        InvalidInput: the options are not a JSON object.
    """
    try:
        more = json.loads(options or "{}")
    except ValueError:
        more = None
    if not isinstance(more, dict):
        raise InvalidInput("the options of a source are a JSON object")
    if location.lower().startswith(("http://", "https://")):
        return {"kind": "remote", "url": location, **more}
    path = Path(location).resolve()
    return {"kind": "manifest" if path.is_file() else "folder", "path": str(path), **more}


def every_error(imports: SqlImports, job_id: str, page: int = _PAGE) -> Iterator[RowError]:
    """Read all that was wrong, page by page, in the order of the rows.

    Raises:
        NotFound: the job is not the last import of any source.
    """
    after = 0
    while some := imports.errors(job_id, page, after):
        yield from some
        after = some[-1].row
