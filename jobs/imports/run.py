"""Job that imports products from a source.

It reads the source as a stream and saves its position after every batch. So a killed import resumes where it was
and repeats at most one batch, which changes nothing. It encodes nothing: the repair and builds look for images
without embeddings.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from catalog.fetching.fetcher import Fetcher
from catalog.imports import RowError, stable_hash
from catalog.opening import Catalog
from catalog.sources.entries import Entry, Record
from catalog.sources.folder import check_opened
from catalog.sources.remote import open_source
from core.batching import batched
from core.errors import NotFound, Unavailable
from core.jobs import ImportArgs, JobArgs
from core.sources import FolderSource, ManifestSource, RemoteSource
from jobs.imports.batch import BatchImport, BatchResult
from jobs.imports.images import ReadBounds
from jobs.runner.context import JobContext, JobRun
from jobs.runner.settings import Settings

_BACKOFF_S = 2.0
_COUNTS = ("rows", "created", "updated", "unchanged", "failed", "images_read", "images_unchanged")
_ERRORS_SHOWN = 20
_EXAMPLES = 3
_NEXT = (
    "the running service's repair encodes the new images in the background; "
    "a job of kind build does so at once"
)


class ImportRun:
    """Imports from a source, beginning at the last saved position."""

    def __init__(
        self, run: JobRun, settings: Settings, catalog: Catalog, args: ImportArgs, source: str
    ) -> None:
        self._run = run
        self._settings = settings
        self._catalog = catalog
        self._args = args
        fetcher = Fetcher(settings.fetch)
        run.report(stage="reading the source")
        self._source = open_source(args.source, fetcher, settings.imports)
        bounds = ReadBounds(settings.images, settings.fetch.max_total_bytes, settings.imports)
        self._batches = BatchImport(catalog, fetcher, bounds, settings.max_images_per_product, args.ask_again)
        plan = stable_hash([args.source.model_dump(mode="json"), self._source.version])
        self._state = catalog.imports.begin(source, plan, run.job.job_id)
        self._counts = Counter(self._state.counts)

    def run_to_end(self) -> None:
        """Import everything behind the position."""
        self._run.report(stage="importing")
        before, started = Counter(self._counts), time.monotonic()
        for batch in _batches(
            self._source.entries(self._state.position), self._settings.imports.batch_products
        ):
            self._run.check()
            result = self._patiently(batch)
            self._counts.update(result.counts)
            self._state = replace(self._state, position=batch[-1].position, counts=dict(self._counts))
            self._catalog.imports.save(self._state, result.products, result.errors)
            self._report_pace(self._counts - before, time.monotonic() - started)

    def _report_pace(self, new: Counter[str], elapsed_s: float) -> None:
        """Report what is done; rows are counted, and images timed in this process."""
        elapsed_s = max(elapsed_s, 1e-3)
        total, done, rate = self._source.total(), self._counts["rows"], new["rows"] / elapsed_s
        self._run.report(
            total=total or 0,
            done=done,
            failed=self._counts["failed"],
            images_per_s=(new["images_read"] + new["images_unchanged"]) / elapsed_s,
            eta_s=None if total is None or not rate else max(0, total - done) / rate,
        )

    def delete_vanished(self) -> str | None:
        """Delete products that the source no longer delivers; returns the reason where nothing is deleted."""
        gone, known = self._catalog.imports.vanished(self._state)
        refusal = self._refusal(len(gone), known)
        if refusal is not None:
            return refusal
        size = self._settings.imports.batch_products
        for some in batched(gone, size):
            self._run.check()
            self._run.report(stage=f"deleting {len(gone)} vanished products")
            self._counts["deleted"] += sum(_delete(self._catalog, product_id) for product_id in some)
            self._catalog.imports.forget(self._state.source, some)
        return None

    def finish(self) -> Counter[str]:
        """Record the end of the import; returns its counts."""
        self._catalog.imports.finish(self._state.source, self._counts)
        return self._counts

    def report(self) -> dict[str, Any]:
        """Describe what the source was read as."""
        return self._source.report()

    def _refusal(self, gone: int, known: int) -> str | None:
        if not gone:
            return None
        if self._counts["nameless"]:
            return (
                f"{self._counts['nameless']} rows have no product id, and any of the {gone} vanished "
                "products could be one of them; nothing was deleted"
            )
        percent = 100 * gone / known
        if percent > self._args.max_delete_percent:
            return (
                f"{gone} of {known} products ({percent:.1f} %) vanished from the source, more than "
                f"max_delete_percent {self._args.max_delete_percent:g}; nothing was deleted"
            )
        return None

    def _patiently(self, batch: list[Entry]) -> BatchResult:
        """Put a batch; retry while the catalog does not answer."""
        waited_s = 0.0
        while True:
            try:
                ids = [entry.product_id for entry in batch if entry.product_id is not None]
                return self._batches.put(batch, self._catalog.imports.rows_of(self._state, ids))
            except Unavailable:
                waited_s += _BACKOFF_S
                if waited_s > self._settings.bulk.patience_s:
                    raise
            self._run.report(stage="waiting for the catalog, which does not answer")
            self._run.pause(_BACKOFF_S)
            self._run.report(stage="importing")


def _batches(entries: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    while batch := list(islice(entries, size)):
        yield batch


def _delete(catalog: Catalog, product_id: str) -> bool:
    try:
        catalog.products.delete(product_id)
    except NotFound:
        return False
    return True


def import_products(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Import from a source, or resume an interrupted import; returns its counts.

    Raises:
        InvalidInput: the source cannot be read as described.
        FetchFailed: its server failed in all attempts; the same job resumes there.
        Conflict: another job imports from this source, or this one was canceled.
        Unavailable: the catalog did not answer for longer than the configured patience.
    """
    assert isinstance(args, ImportArgs)
    if not context.at_shell:
        check_opened(args, context.settings.imports.folders)
    location = location_of(args.source)
    if args.dry_run:
        return {"source": location, **_preview(context, args)}
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
        "read_as": running.report(),
        "errors": [asdict(each) for each in errors],
        "next": _NEXT,
    }


def _preview(context: JobContext, args: ImportArgs) -> dict[str, Any]:
    """Read the source to its end without its images, and describe it."""
    context.run.report(stage="reading the source")
    source = open_source(args.source, Fetcher(context.settings.fetch), context.settings.imports)
    counts = Counter[str]()
    examples: list[Record] = []
    errors: list[RowError] = []
    for batch in _batches(source.entries(None), context.settings.imports.batch_products):
        context.run.check()
        for entry in batch:
            if isinstance(entry.content, Record):
                counts["products"] += 1
                counts["images"] += len(entry.content.images or ())
                examples += [entry.content] * (len(examples) < _EXAMPLES)
            else:
                counts["failed"] += 1
                error = RowError(entry.row, entry.product_id, entry.content.message)
                errors += [error] * (len(errors) < _ERRORS_SHOWN)
        context.run.report(total=source.total() or 0, done=counts["products"], failed=counts["failed"])
    return {
        **{name: counts[name] for name in ("products", "images", "failed")},
        "read_as": source.report(),
        "examples": [
            {**asdict(each), "images": None if each.images is None else [str(image) for image in each.images]}
            for each in examples
        ],
        "errors": [asdict(each) for each in errors],
    }


def location_of(source: FolderSource | ManifestSource | RemoteSource) -> str:
    """Return the location of the products, however they are read."""
    if isinstance(source, RemoteSource):
        return source.url
    return str(Path(source.path).resolve())
