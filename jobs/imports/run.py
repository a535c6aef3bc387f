"""Job that imports products from a source.

It reads the source as a stream and saves its position after every batch. So a killed import resumes where it was
and repeats at most one batch, which changes nothing. It encodes nothing: the repair and builds look for images
without embeddings.
"""

import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from catalog.fetching.fetcher import Fetcher
from catalog.imports import RowError, stable_hash
from catalog.products import DeleteProduct
from catalog.sources.entries import Entry, Record, Source
from catalog.sources.folder import check_opened
from catalog.sources.remote import open_source
from core.concurrency import batched
from core.errors import NotFound, Unavailable, VitrineError
from core.jobs import ImportArgs
from core.sources import RemoteSource
from jobs.imports.batch import BatchImport, BatchResult, check_record
from jobs.runner.context import JobContext

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

    def __init__(self, context: JobContext, args: ImportArgs, source: str) -> None:
        self._run = context.run
        self._catalog = context.catalog
        self._imports = context.catalog.imports
        self._size = context.settings.imports.batch_products
        self._patience_s = context.settings.bulk.patience_s
        self._max_delete_percent = args.max_delete_percent
        self.source = _opened(context, args)
        self._batches = BatchImport(context.catalog, context.settings, args.ask_again)
        plan = stable_hash([args.source.model_dump(mode="json"), self.source.version])
        self._state = self._imports.begin(source, plan, context.run.job.job_id)
        self.counts = Counter(self._state.counts)

    def run_to_end(self) -> None:
        """Import everything behind the position."""
        self._run.report(stage="importing")
        before, started = Counter(self.counts), time.monotonic()
        for batch in batched(self.source.entries(self._state.position), self._size):
            self._run.check()
            result = self._patiently(batch)
            self.counts.update(result.counts)
            self._state = replace(self._state, position=batch[-1].position, counts=dict(self.counts))
            self._imports.save(self._state, result.products, result.errors)
            self._report_pace(self.counts - before, time.monotonic() - started)

    def delete_vanished(self) -> str | None:
        """Delete products that the source no longer delivers; returns the reason where nothing is deleted."""
        gone, known = self._imports.vanished(self._state)
        refusal = self._refusal(len(gone), known)
        for some in batched([] if refusal else gone, self._size):
            self._run.check()
            self._run.report(stage=f"deleting {len(gone)} vanished products")
            outcomes = self._catalog.products.write([DeleteProduct(each) for each in some])
            # One that is not found is gone already.
            self.counts["deleted"] += sum(not isinstance(each, NotFound) for each in outcomes)
            self._imports.forget(self._state.source, some)
        return refusal

    def finish(self) -> None:
        """Record the end of the import."""
        self._imports.finish(self._state.source, self.counts)

    def _report_pace(self, new: Counter[str], elapsed_s: float) -> None:
        """Report what is done; rows are counted, and images timed in this process."""
        elapsed_s = max(elapsed_s, 1e-3)
        total, done, rate = self.source.total(), self.counts["rows"], new["rows"] / elapsed_s
        self._run.report(
            total=total or 0,
            done=done,
            failed=self.counts["failed"],
            images_per_s=(new["images_read"] + new["images_unchanged"]) / elapsed_s,
            eta_s=None if total is None or not rate else max(0, total - done) / rate,
        )

    def _refusal(self, gone: int, known: int) -> str | None:
        if gone and self.counts["nameless"]:
            return (
                f"{self.counts['nameless']} rows have no product id, and any of the {gone} vanished "
                "products could be one of them; nothing was deleted"
            )
        percent = 100 * gone / max(known, 1)
        if percent > self._max_delete_percent:
            return (
                f"{gone} of {known} products ({percent:.1f} %) vanished from the source, more than "
                f"max_delete_percent {self._max_delete_percent:g}; nothing was deleted"
            )
        return None

    def _patiently(self, batch: list[Entry]) -> BatchResult:
        """Put a batch; retry while the catalog does not answer."""
        waited_s = 0.0
        while True:
            try:
                ids = [entry.product_id for entry in batch if entry.product_id is not None]
                return self._batches.put(batch, self._imports.rows_of(self._state, ids))
            except Unavailable:
                waited_s += _BACKOFF_S
                if waited_s > self._patience_s:
                    raise
            self._run.report(stage="waiting for the catalog, which does not answer")
            self._run.pause(_BACKOFF_S)
            self._run.report(stage="importing")


def _opened(context: JobContext, args: ImportArgs) -> Source:
    context.run.report(stage="reading the source")
    return open_source(args.source, Fetcher(context.settings.fetch), context.settings.imports)


def import_products(context: JobContext, args: ImportArgs) -> dict[str, Any]:
    """Import from a source, or resume an interrupted import; returns its counts.

    Raises:
        InvalidInput: the source cannot be read as described.
        FetchFailed: its server failed in all attempts; the same job resumes there.
        Conflict: another job imports from this source, or this one was canceled.
        Unavailable: the catalog did not answer for longer than the configured patience.
    """
    if not context.at_shell:
        check_opened(args, context.settings.imports.folders)
    described = args.source
    location = described.url if isinstance(described, RemoteSource) else str(Path(described.path).resolve())
    if args.dry_run:
        return {"source": location, **_preview(context, args)}
    source = stable_hash([args.source.kind, location])
    context.run.claim(f"source {location:.200} {source[:12]}")
    running = ImportRun(context, args, source)
    running.run_to_end()
    refused = running.delete_vanished() if args.delete_missing else None
    running.finish()
    errors = context.catalog.imports.errors(context.run.job.job_id, _ERRORS_SHOWN)
    return {
        "source": location,
        **{name: running.counts[name] for name in (*_COUNTS, "deleted")},
        "deletion_refused": refused,
        "read_as": running.source.report(),
        "errors": [asdict(each) for each in errors],
        "next": _NEXT,
    }


def _preview(context: JobContext, args: ImportArgs) -> dict[str, Any]:
    """Read the source to its end without its images, and describe it."""
    source = _opened(context, args)
    counts = Counter[str]()
    examples: list[Record] = []
    errors: list[RowError] = []
    for entry in source.entries(None):
        if (counts["products"] + counts["failed"]) % 1_000 == 0:
            context.run.check()
            context.run.report(total=source.total() or 0, done=counts["products"], failed=counts["failed"])
        try:
            if not isinstance(entry.content, Record):
                raise entry.content
            check_record(entry.content, context.settings)
        except VitrineError as error:
            counts["failed"] += 1
            shown = RowError(entry.row, entry.product_id, error.message)
            errors += [shown] * (len(errors) < _ERRORS_SHOWN)
        else:
            counts.update(products=1, images=len(entry.content.images or ()))
            examples += [entry.content] * (len(examples) < _EXAMPLES)
    return {
        **{name: counts[name] for name in ("products", "images", "failed")},
        "read_as": source.report(),
        "examples": [
            # A data URI holds a whole file.
            {**asdict(each), "images": each.images and [f"{image!s:.200}" for image in each.images]}
            for each in examples
        ],
        "errors": [asdict(each) for each in errors],
    }
