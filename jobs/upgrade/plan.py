"""The job `plan`: what a candidate would change and cost, without writing anything."""

from typing import Any

from core.jobs import JobArgs, PlanArgs
from core.types import EncoderInfo
from jobs.context import JobContext, open_store
from jobs.settings import EncoderSettings
from jobs.upgrade.trial import Trial, try_out
from milvus.store import MilvusStore

_MIN_PICTURES, _MAX_PICTURES = 32, 5_000
"""Fewer say nothing of the speed, and more tell nothing more."""


def plan(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Compare the candidate with the live version and estimate the build of what it lacks.

    Raises:
        InvalidInput: there is no such model, or the candidate cannot be.
        ConfigError: the candidate does not load.
    """
    assert isinstance(args, PlanArgs)
    catalog = context.catalog
    candidate = context.settings.encoder(args.model, args.candidate)
    pictures = catalog.products.counts()[1]
    wanted = min(max(_MIN_PICTURES, round(pictures * args.percent / 100)), _MAX_PICTURES)
    context.run.report(stage="trying the candidate", total=wanted)
    trial = try_out(context.settings, candidate, wanted)
    context.run.report(images_per_s=trial.images_per_s, done=trial.pictures)
    missing = catalog.ledger.counts(trial.info.collection).missing
    with open_store(context) as store:
        exists = store.has_collection(trial.info.collection)
        live = _live(store, catalog.ledger.versions(), args.model)
    missing = missing if exists else pictures
    return {
        "model": args.model,
        "live": live and live.collection,
        "live_dimension": live and live.dimension,
        "candidate": trial.info.collection,
        "fingerprint": trial.info.fingerprint,
        "dimension": trial.info.dimension,
        "collection_exists": exists,
        "pictures": pictures,
        "missing": missing,
        **_estimate(context, candidate, trial, missing),
    }


def _estimate(
    context: JobContext, candidate: EncoderSettings, trial: Trial, missing: int
) -> dict[str, float | int | None]:
    bulk = context.settings.bulk
    actors = bulk.max_actors
    gpus = candidate.resources(bulk)["num_gpus"] * actors
    seconds = None
    if trial.images_per_s is not None:
        seconds = trial.startup_s + missing / (trial.images_per_s * actors) if missing else 0.0
    return {
        "sampled": trial.pictures,
        "startup_s": trial.startup_s,
        "images_per_s_per_actor": trial.images_per_s,
        "actors": actors,
        "predicted_s": seconds,
        "gpu_hours": None if seconds is None else gpus * seconds / 3600,
        "vector_bytes": trial.info.dimension * 4 * missing,
    }


def _live(store: MilvusStore, versions: list[EncoderInfo], model: str) -> EncoderInfo | None:
    target = store.alias_target(model)
    return next((info for info in versions if info.collection == target), None)
