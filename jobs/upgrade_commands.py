"""The commands of `python -m jobs` around a model upgrade, and `verify`."""

from typing import Annotated

import typer

from jobs.options import Address, ConfigFile, Field, Model, candidate_args
from jobs.starting import start

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
        percent: Annotated[float, typer.Option(help="Share of the pictures to measure by.")] = 2.0,
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
        percent: Annotated[float, typer.Option(help="Share of the pictures to encode anew.")] = 5.0,
        seed: Annotated[int | None, typer.Option(help="Of the drawing; default: another each time.")] = None,
        repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,
        config: ConfigFile = None,
        address: Address = None,
    ) -> None:
        """Compare catalogue, ledger and Milvus, list each difference, and repair on request."""
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
