"""Commands of an upgrade: plan, build, evaluate, promote, roll back, prune, verify, adopt."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from vitrine.cli.jobs import Waiting
from vitrine.cli.service import OptionGroup, Service, asks, json_object

_PANEL = "Candidate, where it differs from what is configured"
Changed = Annotated[str | None, typer.Option(rich_help_panel=_PANEL, show_default=False)]
Model = Annotated[str, typer.Option(help="A configured encoder.")]
Apply = Annotated[
    bool,
    typer.Option(help="Change the running configuration, or tell the change and wait for it to be made."),
]
WaitS = Annotated[float, typer.Option("--wait-s", help="How long to wait for the replicas, in seconds.")]


@dataclass(frozen=True, slots=True)
class Candidate(OptionGroup):
    """What a candidate differs in from the configured encoder."""

    checkpoint: Changed = None
    pretrained: Changed = None
    revision: Changed = None
    precision: Changed = None
    pooling: Changed = None

    @property
    def changes(self) -> dict[str, Any]:
        """What is given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@asks
def plan(
    model: Model,
    percent: Annotated[float, typer.Option(help="Share of the images to measure by.")] = 2.0,
    *,
    candidate: Candidate,
    waiting: Waiting,
    service: Service,
) -> None:
    """Say what a candidate would change, what it lacks and how long its build takes; write nothing."""
    waiting.do(service, "plan", model=model, percent=percent, **candidate.changes)


@asks
def build(model: Model, *, candidate: Candidate, waiting: Waiting, service: Service) -> None:
    """Fill the collection of a model's version; goes on where an earlier build has ended or died."""
    waiting.do(service, "build", model=model, **candidate.changes)


@asks
def sample(
    model: Model,
    percent: Annotated[float, typer.Option(help="Share of the images.")] = 5.0,
    *,
    candidate: Candidate,
    waiting: Waiting,
    service: Service,
) -> None:
    """Build a share of a collection and predict how long the whole takes."""
    waiting.do(service, "sample", model=model, percent=percent, **candidate.changes)


@asks
def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A configured encoder to compare; default: all with a collection."),
    ] = None,
    candidate_of: Annotated[
        str | None,
        typer.Option("--candidate", help="Model whose candidate is compared with it and judged by the gate."),
    ] = None,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(help='As JSON: {"name", "weights", "fusion"}; default: the configured.'),
    ] = None,
    queries: Annotated[
        str | None, typer.Option(help="Table of labeled queries, in a folder that the service has opened.")
    ] = None,
    sampled: Annotated[
        int | None, typer.Option("--sample", help="Images to change where no labels are.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the drawing and the intervals.")] = None,
    *,
    candidate: Candidate,
    waiting: Waiting,
    service: Service,
) -> None:
    """Compare models and ensembles on labeled queries, or on changed images of the catalog."""
    changes = candidate.changes
    if changes and candidate_of is None:
        raise typer.BadParameter(
            f"name the model that --{next(iter(changes))} is of", param_hint="--candidate"
        )
    waiting.do(
        service,
        "evaluate",
        models=model,
        candidate=None if candidate_of is None else {"model": candidate_of, **changes},
        ensembles=None if ensemble is None else [json_object(each, "--ensemble") for each in ensemble],
        queries=queries,
        sample=sampled,
        seed=seed,
    )


@asks
def promote(
    model: Model,
    force: Annotated[str | None, typer.Option(help="Why to promote it whatever the evaluation says.")] = None,
    apply: Apply = True,
    wait_s: WaitS = 1800.0,
    *,
    candidate: Candidate,
    waiting: Waiting,
    service: Service,
) -> None:
    """Let a built candidate take over from the live version, without an hour of downtime."""
    waiting.do(service, "promote", model=model, force=force, apply=apply, wait_s=wait_s, **candidate.changes)


@asks
def rollback(
    model: Model,
    to: Annotated[str | None, typer.Option(help="Fingerprint; default: the version before.")] = None,
    apply: Apply = True,
    wait_s: WaitS = 1800.0,
    *,
    waiting: Waiting,
    service: Service,
) -> None:
    """Go back to the version that was live before, brought up to date first."""
    waiting.do(service, "rollback", model=model, to=to, apply=apply, wait_s=wait_s)


@asks
def prune(
    model: Annotated[
        str | None, typer.Option(help="A configured encoder, of which versions are dropped.")
    ] = None,
    keep: Annotated[int, typer.Option(min=0, help="Earlier versions to keep, the latest first.")] = 1,
    files: Annotated[
        bool, typer.Option("--files", help="Remove image files that no product names, instead of versions.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be dropped or removed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    *,
    waiting: Waiting,
    service: Service,
) -> None:
    """Drop the collections of versions that nobody goes back to, or image files that no product names."""
    if files == (model is not None):
        raise typer.BadParameter("say either --model or --files", param_hint="--model")
    kind, args = ("prune_files", {}) if files else ("prune", {"model": model, "keep": keep})
    if not yes and not dry_run:
        if waiting.detach or service.as_json:
            raise typer.BadParameter("say --yes, or --dry-run: nobody can be asked", param_hint="--yes")
        planned = waiting.do(service, kind, dry_run=True, **args).result or {}
        if not planned.get("would_remove" if files else "would_drop"):
            return
        question = "Remove these files for good?" if files else "Drop these collections?"
        typer.confirm(question, abort=True, err=True)
    waiting.do(service, kind, dry_run=dry_run, **args)


@asks
def verify(
    model: Annotated[str | None, typer.Option(help="A configured encoder; default: all.")] = None,
    percent: Annotated[float, typer.Option(help="Share of the images to encode anew.")] = 5.0,
    seed: Annotated[int | None, typer.Option(help="Of the drawing; default: another each time.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,
    *,
    waiting: Waiting,
    service: Service,
) -> None:
    """Compare catalog, ledger and Milvus; exit code 5 where differences stay."""
    waiting.do(service, "verify", model=model, percent=percent, seed=seed, repair=repair)


@asks
def adopt(
    keep_index: Annotated[
        bool, typer.Option("--keep-index", help="Believe the ledger: the collections are there.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    *,
    waiting: Waiting,
    service: Service,
) -> None:
    """Confirm that the former Milvus is lost: the configured one takes its place, and all is encoded anew."""
    if not yes:
        if waiting.detach or service.as_json:
            raise typer.BadParameter("say --yes: nobody can be asked", param_hint="--yes")
        typer.confirm("Take the configured Milvus in the place of the former?", abort=True, err=True)
    waiting.do(service, "adopt", keep_index=keep_index)
