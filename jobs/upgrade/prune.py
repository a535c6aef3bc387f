"""The jobs `prune` and `prune_files`: drop the collections, and the image files, that nobody goes back to."""

from typing import Any

from catalog.image_files import PREFIXES
from catalog.opening import Catalog
from core.errors import Conflict
from core.jobs import PruneArgs, PruneFilesArgs
from core.ports import VectorStore
from core.types import EncoderInfo
from jobs.build.file_import import Staging
from jobs.runner.context import JobContext, open_store
from jobs.upgrade.serving import RunningServe, Serving

_FILES_AT_ONCE = 500


def prune(context: JobContext, args: PruneArgs) -> dict[str, Any]:
    """Drop what the arguments do not keep; return what was, or would be, dropped and what stays.

    Raises:
        Conflict: an upgrade of the model is under way; the message holds its id.
        InvalidInput: there is no such encoder.
        Unavailable: Milvus is away, or no replica says which version it serves.
    """
    context.settings.encoder(args.model, {})
    context.run.claim(f"the upgrade of {args.model}")
    with open_store(context) as store:
        dropped, kept = sort_out(context.catalog, store, RunningServe(), args.model, args.keep)
        if not args.dry_run:
            for info in dropped:
                context.run.report(stage=f"dropping {info.collection}")
                drop(context.catalog, store, info)
                forget_files(context, info)
    return {
        "model": args.model,
        "would_drop" if args.dry_run else "dropped": [info.collection for info in dropped],
        "kept": {info.collection: reason for info, reason in kept},
    }


def prune_files(context: JobContext, args: PruneFilesArgs) -> dict[str, Any]:
    """Remove every image file that no product names; return the numbers of files, and the bytes of those found.

    A file that cannot be removed does not stop the others: the result counts it as `failed`. Reports show
    small copies of images, so reports of jobs without a record are removed too.

    Raises:
        Conflict: another such job is at work, a backup or a restore needs the files, or they belong to another
            database.
        Unavailable: the database or the store of image files is away.
    """
    run, files = context.run, context.catalog.image_files
    run.claim("the image files")
    files.check_owner(claim=not args.dry_run)
    find = files.unnamed if args.dry_run else files.mark_unnamed
    number = size = 0
    for done, prefix in enumerate(PREFIXES):
        run.report(stage="looking for unnamed image files", total=len(PREFIXES), done=done)
        run.check()
        found = find(prefix)
        number, size = number + len(found), size + sum(found.values())
    if args.dry_run:
        return {"would_remove": number, "bytes": size, "reports": _prune_reports(context, dry_run=True)}
    removed, failed, last, more = 0, 0, None, True
    while more:
        run.report(stage="removing image files", total=number, done=removed)
        run.check()
        collected = files.collect(0, _FILES_AT_ONCE, last)
        if collected.held:
            raise Conflict(
                "a backup or a restore is under way and needs the files; try again when it is done"
            )
        removed, failed, last = removed + collected.removed, failed + collected.failed, collected.last
        more = last is not None
    context.catalog.captions.forget_gone()
    reports = _prune_reports(context, dry_run=False)
    return {"removed": removed, "failed": failed, "bytes": size, "reports": reports}


def _prune_reports(context: JobContext, dry_run: bool) -> int:
    reports, run, number = context.catalog.reports, context.run, 0
    run.report(stage="looking for reports of forgotten jobs")
    for prefix in PREFIXES:
        # Listed first: a report that comes later is not in the list, and one that was there belongs to a job
        # that lives, or whose result names it by now, or to none.
        if not (found := reports.sizes(prefix)):
            continue
        run.check()
        named = context.catalog.jobs.report_files(run.job.job_id)
        if named is None:
            run.report(stage="leaving the reports: another job is at work")
            break
        for sha256 in found.keys() - named:
            number += 1
            if not dry_run:
                reports.remove(sha256)
    return number


def forget_files(context: JobContext, info: EncoderInfo) -> None:
    """Remove the files that a build left for Milvus to import into a dropped collection."""
    files = context.settings.bulk.file_import
    if files is not None:
        staging = Staging(files, info.collection)
        for name in staging.names():
            staging.remove(name)


def sort_out(
    catalog: Catalog, store: VectorStore, serving: Serving, model: str, keep: int
) -> tuple[list[EncoderInfo], list[tuple[EncoderInfo, str]]]:
    """Sort the versions of a model into those to drop and those to keep, each with the reason."""
    live = store.alias_target(model)
    earlier = [info.collection for info in catalog.versions.retired(model) if info.collection != live]
    # Must be known: the version that serves need not be the live one.
    serves = serving.describe(model).collection
    dropped, kept = [], []
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
            dropped.append(info)
    return dropped, kept


def drop(catalog: Catalog, store: VectorStore, info: EncoderInfo) -> None:
    """Drop a version: Milvus first, so that a kill in between leaves rows for the next prune."""
    # By its own name, which the store refuses where that is an alias.
    store.drop_collection(info.collection)
    catalog.versions.forget(info.collection)
