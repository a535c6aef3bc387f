"""The job that takes products over from a source.

It reads the source as a stream and saves its position after every batch, so a killed import goes on where
it was and does at most one batch again, which changes nothing. It encodes nothing: pictures without
embeddings are what the repair and builds look for.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from catalog.imports import stable_hash
from catalog.sources.folder_paths import check_opened
from core.jobs import ImportArgs, JobArgs
from core.sources import FolderSource, ManifestSource, RemoteSource
from jobs.context import JobContext
from jobs.import_run import ImportRun

_COUNTS = ("rows", "created", "updated", "unchanged", "failed", "pictures_read", "pictures_unchanged")
_ERRORS_SHOWN = 20
_NEXT = (
    "the running service's repair encodes the new pictures in the background; "
    "a job of kind build does so at once"
)


def import_products(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Import from a source, or go on with an import that was interrupted; returns its numbers.

    Raises:
        InvalidInput: the source cannot be read as it is described.
        FetchFailed: its server failed for longer than was borne; the same job goes on later.
        Conflict: another job imports from this source, or this one was cancelled.
        Unavailable: the catalog was away for longer than the configured patience.
    """
    assert isinstance(args, ImportArgs)
    if not context.at_shell:
        check_opened(args, context.settings.imports.folders)
    location = location_of(args.source)
    source = stable_hash([args.source.kind, location])
    context.run.claim(f"source {location:.200} {source[:12]}")
    running = ImportRun(context.run, context.settings, context.catalog, args, source)
    running.run_to_end()
    refused = running.delete_vanished() if args.delete_missing else None
    counts = running.finish()
    errors = context.catalog.imports.errors(context.run.job.job_id, _ERRORS_SHOWN)
    return {
        "source": location,
        **{name: counts[name] for name in (*_COUNTS, "deleted")},
        "deletion_refused": refused,
        "errors": [asdict(each) for each in errors],
        "next": _NEXT,
    }


def location_of(source: FolderSource | ManifestSource | RemoteSource) -> str:
    """Name the place that products come from, however they are read from it."""
    if isinstance(source, RemoteSource):
        return source.url
    return str(Path(source.path).resolve())
