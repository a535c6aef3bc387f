"""The job `prune`: drop the collections of versions that nobody goes back to."""

from typing import Any

from catalog.opening import Catalog
from core.jobs import JobArgs, PruneArgs
from core.ports import VectorStore
from core.types import EncoderInfo
from jobs.context import JobContext, open_store
from jobs.staging import Staging
from jobs.upgrade.serving import RunningServe, Serving


def prune(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Drop what the arguments do not keep; returns what was, or would be, dropped and what stays.

    Raises:
        Conflict: an upgrade of the model is under way; the message holds its id.
        InvalidInput: there is no such encoder.
        Unavailable: Milvus is away, or no replica says which version it serves.
    """
    assert isinstance(args, PruneArgs)
    context.settings.encoder(args.model, {})
    context.run.claim(f"the upgrade of {args.model}")
    with open_store(context) as store:
        doomed, kept = sort_out(context.catalog, store, RunningServe(), args.model, args.keep)
        if not args.dry_run:
            for info in doomed:
                context.run.report(stage=f"dropping {info.collection}")
                drop(context.catalog, store, info)
                forget_files(context, info)
    return {
        "model": args.model,
        "dropped" if not args.dry_run else "would_drop": [info.collection for info in doomed],
        "kept": {info.collection: reason for info, reason in kept},
    }


def forget_files(context: JobContext, info: EncoderInfo) -> None:
    """Remove what a build has left for Milvus to import into the collection that is gone."""
    files = context.settings.bulk.file_import
    if files is not None:
        staging = Staging(files, info.collection)
        for name in staging.names():
            staging.remove(name)


def sort_out(
    catalog: Catalog, store: VectorStore, serving: Serving, model: str, keep: int
) -> tuple[list[EncoderInfo], list[tuple[EncoderInfo, str]]]:
    """Tell the versions of a model that may go from those that stay, each with the reason."""
    live = store.alias_target(model)
    earlier = [info.collection for info in catalog.versions.retired(model) if info.collection != live]
    # Must be known: the version that serves need not be the live one.
    serves = serving.describe(model).collection
    doomed, kept = [], []
    for info in (each for each in catalog.ledger.versions() if each.name == model):
        if info.collection == live:
            kept.append((info, "live"))
        elif info.collection == serves:
            kept.append((info, "serves"))
        elif info.collection in earlier[:keep]:
            kept.append((info, "was live before"))
        elif catalog.jobs.holder(f"collection {info.collection}") is not None:
            kept.append((info, "is being built"))
        else:
            doomed.append(info)
    return doomed, kept


def drop(catalog: Catalog, store: VectorStore, info: EncoderInfo) -> None:
    """Drop a version: Milvus first, so that a death in between leaves rows that the next prune finds."""
    # By its own name, which the store refuses where that is an alias.
    store.drop_collection(info.collection)
    catalog.versions.forget(info.collection)
