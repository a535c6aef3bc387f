"""Commands of an upgrade: plan, build, sample, evaluate, promote, rollback, prune, verify, adopt."""

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vitrine.cli.jobs import JobOptions
from vitrine.cli.service import JsonObject, asks, json_option

candidate_option = partial(
    typer.Option, rich_help_panel="Candidate, where it differs from what is configured", show_default=False
)
Model = Annotated[str, typer.Option(help="A configured encoder.")]
Fingerprint = Annotated[str | None, typer.Option(help="A version of the model; default: the one before.")]
Apply = Annotated[
    bool, typer.Option(help="Change the running configuration, or log the change and wait until it is made.")
]
WaitS = Annotated[float, typer.Option("--wait-s", help="How long to wait for the replicas, in seconds.")]


@dataclass(frozen=True, slots=True)
class CandidateJob(JobOptions):
    """A job on a candidate: fields in which it differs from the encoder, those of `core.jobs.Candidate`."""

    family: Annotated[str | None, candidate_option(help="Library that loads it.")] = None
    checkpoint: Annotated[
        str | None, candidate_option(help="Directory, hub id, or architecture with --pretrained.")
    ] = None
    pretrained: Annotated[str | None, candidate_option(help="Tag of its weights, for openclip.")] = None
    revision: Annotated[str | None, candidate_option(help="Revision of a hub id.")] = None
    precision: Annotated[str | None, candidate_option(help="Number format of its weights.")] = None
    int8_threshold: Annotated[
        float | None, candidate_option(help="Activations beyond which int8 multiplies in full.")
    ] = None
    pooling: Annotated[str | None, candidate_option(help="Pooling of its tokens.")] = None
    draft: Annotated[bool | None, candidate_option(help="Decode JPEG files at a reduced size.")] = None
    decode_on_gpu: Annotated[
        bool | None, candidate_option(help="Decode JPEG files on the GPU in builds.")
    ] = None

    @property
    def changes(self) -> dict[str, Any]:
        """The fields of the candidate; None in those that are not given."""
        own = {each.name for each in fields(self)} - {each.name for each in fields(JobOptions)}
        return {name: getattr(self, name) for name in own}


@asks
def plan(
    model: Model,
    percent: Annotated[float, typer.Option(help="Share of the images to measure by.")] = 2.0,
    *,
    job: CandidateJob,
) -> None:
    """Estimate what a candidate changes, what it lacks and how long its build takes; write nothing."""
    job.do("plan", model=model, percent=percent, **job.changes)


@asks
def build(model: Model, *, job: CandidateJob) -> None:
    """Fill the collection of a version; continue where an earlier build stopped."""
    job.do("build", model=model, **job.changes)


@asks
def sample(
    model: Model,
    percent: Annotated[float, typer.Option(help="Share of the images.")] = 5.0,
    *,
    job: CandidateJob,
) -> None:
    """Build a share of a collection and predict how long the whole takes."""
    job.do("sample", model=model, percent=percent, **job.changes)


@asks
def evaluate(
    model: Annotated[
        str | None, typer.Option(help="A configured encoder; default: all with a collection.")
    ] = None,
    compare: Annotated[list[str] | None, typer.Option(help="A further encoder to compare.")] = None,
    ensemble: Annotated[
        list[JsonObject] | None, json_option(help='{"name", "weights", "fusion"}; default: the configured.')
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            help="Encoder with a matching head; measure all once more with their first products re-ranked."
        ),
    ] = None,
    rerank_depth: Annotated[int, typer.Option(min=1, help="Products that --rerank orders.")] = 50,
    queries: Annotated[
        str | None, typer.Option(help="Table of labeled queries, in a folder that is open to the service.")
    ] = None,
    sampled: Annotated[
        int | None, typer.Option("--sample", help="Images to alter if there are no labels.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random sample and the intervals.")] = None,
    *,
    job: CandidateJob,
) -> None:
    """Compare a candidate with its live version by the quality gate, or configured models and ensembles.

    The queries are labeled, or changed images of the catalog.
    """
    is_file = queries is not None and Path(queries).exists()
    job.do(
        "evaluate",
        model=model,
        compare=compare,
        ensembles=ensemble,
        rerank=None if rerank is None else {"model": rerank, "depth": rerank_depth},
        queries=str(Path(queries or "").absolute()) if is_file else queries,
        sample=sampled,
        seed=seed,
        **job.changes,
    )


@asks
def promote(
    model: Model,
    force: Annotated[
        str | None, typer.Option(help="Promote despite the quality gate, for this reason.")
    ] = None,
    apply: Apply = True,
    wait_s: WaitS = 1800.0,
    *,
    job: CandidateJob,
) -> None:
    """Make a built candidate the live version, without downtime."""
    job.do("promote", model=model, force=force, apply=apply, wait_s=wait_s, **job.changes)


@asks
def rollback(
    model: Model,
    fingerprint: Fingerprint = None,
    apply: Apply = True,
    wait_s: WaitS = 1800.0,
    *,
    job: JobOptions,
) -> None:
    """Return to the version that was live before, after bringing it up to date."""
    job.do("rollback", model=model, fingerprint=fingerprint, apply=apply, wait_s=wait_s)


@asks
def prune(
    model: Annotated[
        str | None, typer.Option(help="A configured encoder; its old versions are dropped.")
    ] = None,
    keep: Annotated[int, typer.Option(min=0, help="Earlier versions to keep, the latest first.")] = 1,
    files: Annotated[
        bool, typer.Option("--files", help="Remove image files that no product names, instead of versions.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be dropped or removed; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    *,
    job: JobOptions,
) -> None:
    """Drop the collections of old versions, or remove image files that no product names."""
    if files == (model is not None):
        raise typer.BadParameter("say either --model or --files", param_hint="--model")
    kind, args = ("prune_files", {}) if files else ("prune", {"model": model, "keep": keep})
    if not yes and not dry_run:
        job.require_person()
        planned = job.do(kind, dry_run=True, **args).result or {}
        if not planned.get("would_remove" if files else "would_drop"):
            return
        question = "Remove these files for good?" if files else "Drop these collections?"
        typer.confirm(question, abort=True, err=True)
    job.do(kind, dry_run=dry_run, **args)


@asks
def verify(
    model: Annotated[str | None, typer.Option(help="A configured encoder; default: all.")] = None,
    percent: Annotated[float, typer.Option(help="Share of the images to encode anew.")] = 5.0,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the random sample; default: a new one each time.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,
    *,
    job: JobOptions,
) -> None:
    """Compare catalog, ledger and Milvus; exit code 5 if differences remain."""
    job.do("verify", model=model, percent=percent, seed=seed, repair=repair)


@asks
def adopt(
    keep_index: Annotated[
        bool, typer.Option("--keep-index", help="Trust the ledger: the collections exist.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    *,
    job: JobOptions,
) -> None:
    """Confirm that the former Milvus is lost: the configured one replaces it, and all images are encoded again."""
    if not yes:
        job.require_person()
        typer.confirm("Take the configured Milvus in the place of the former?", abort=True, err=True)
    job.do("adopt", keep_index=keep_index)
