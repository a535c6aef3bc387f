"""Jobs `verify`, which compares catalog, ledger, Milvus and files, and `adopt`, which confirms another Milvus."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from catalog.audit import StoredImage
from core.errors import Conflict
from core.jobs import AdoptArgs, JobArgs, VerifyArgs
from core.ports import VectorStore
from core.types import EncoderInfo
from jobs.build.build import complete, describe
from jobs.build.shards import Shard, cut
from jobs.runner.context import JobContext, open_store
from jobs.runner.settings import EncoderSettings
from jobs.upgrade.rollout import as_it_was
from jobs.verification.checks import FILES_AT_ONCE, check_files, compare_rows, repair_rows
from jobs.verification.differences import EXAMPLES, Differences, Findings, Sample
from jobs.verification.vectors import Compare, OpenChecker, on_cluster

_IMAGES_A_RANGE = 4096
_SEEDS = 2**31


Configured = Mapping[str, tuple[EncoderInfo, EncoderSettings]]
"""Configured version of each model, by collection."""


@dataclass
class Verification:
    """Checks files and versions range by range, so that memory grows neither with the catalog nor with the damage."""

    context: JobContext
    store: VectorStore
    configured: Configured
    open_checker: OpenChecker
    sample: Sample
    checked: dict[str, Any] = field(default_factory=dict)

    def look(self, model: str | None, repair: bool = False) -> Findings:
        """Check every image file and every version of the model, or of all models.

        `repair` makes rows that differ consistent; `rebuild` encodes what is missing then.
        """
        catalog, run, findings = self.context.catalog, self.context.run, Findings()
        images = catalog.products.counts()[1]
        self.checked = {"images": images, "unnamed_files": catalog.image_files.waiting(), "versions": {}}
        shards = cut(images, _IMAGES_A_RANGE)
        run.report(stage="looking at image files", total=images)
        self._look_at_files(shards, findings, repair)
        asked = [name for name in self.context.settings.encoders if model in (None, name)]
        for info in catalog.ledger.versions():
            if info.name in asked:
                run.report(stage=f"comparing {info.collection}")
                self._look_at_version(info, shards, findings, repair)
        for name in asked:
            number, some = catalog.captions.quarantined(name, EXAMPLES)
            findings.add("quarantined_caption", "", some.keys(), some, number)
            if repair and number:
                catalog.captions.retry(name)
        return findings

    def rebuild(self, findings: Findings, build: Callable[[EncoderInfo, EncoderSettings], object]) -> None:
        """Encode what the configured versions lack.

        Other versions are only made consistent with the ledger: a rollback to one encodes what it lacks.
        """
        for collection, (info, encoder) in self.configured.items():
            if findings.concern(collection):
                self.context.run.report(stage=f"repairing {collection}")
                build(info, encoder)

    def _ranges(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, dict[str, StoredImage]]]:
        """Yield the images of each range by row key, and report those that are done."""
        done = 0
        for shard in shards:
            self.context.run.report(done=done)
            self.context.run.check()
            images = self._images(shard)
            yield shard, images
            done += len(images)
        self.context.run.report(done=done)

    def _images(self, shard: Shard) -> dict[str, StoredImage]:
        return {each.key: each for each in self.context.catalog.audit.images(shard.first, shard.beyond)}

    def _look_at_files(self, shards: Sequence[Shard], findings: Findings, repair: bool) -> None:
        catalog = self.context.catalog
        with ThreadPoolExecutor(FILES_AT_ONCE, "files") as pool:
            for shard, images in self._ranges(shards):
                found = check_files(catalog, list(images.values()), self.sample.__contains__, pool)
                if any(found.values()):
                    # Images may have been deleted meanwhile, and their files with them.
                    named = self._images(shard)
                    found = {kind: [key for key in keys if key in named] for kind, keys in found.items()}
                _add(findings, "", found, images)
                broken = {images[key].sha256 for keys in found.values() for key in keys}
                if repair and broken:
                    # Only an import can restore the file: the next one reads it again.
                    catalog.imported_images.forget(sorted(broken))

    def _look_at_version(
        self, info: EncoderInfo, shards: Sequence[Shard], findings: Findings, repair: bool
    ) -> None:
        collection, catalog, store = info.collection, self.context.catalog, self.store
        seen = self.checked["versions"][collection] = {"vectors": 0, "encoded_anew": 0}
        if not store.has_collection(collection):
            counts = catalog.ledger.counts(collection)
            if collection in self.configured or counts.indexed or counts.failed:
                lost = max(1, counts.indexed)
                findings.add("missing_collection", collection, [collection], number=lost)
            if repair:
                catalog.ledger.reset(collection)
            return
        unchecked: set[str] = set()
        with ExitStack() as held:
            # Opened where there is something to encode: it loads the model.
            checker = cache(lambda: held.enter_context(self._open(info)))
            for shard, images in self._ranges(shards):
                is_configured = collection in self.configured
                found, present = compare_rows(catalog, store, collection, shard, images, is_configured)
                seen["vectors"] += len(present)
                drawn = [
                    (key, images[key].sha256, images[key].bytes) for key in present if key in self.sample
                ]
                if drawn and (compare := checker()) is not None:
                    compared = compare(drawn)
                    seen["encoded_anew"] += compared.vectors
                    found["changed_vector"] = compared.changed
                elif drawn:
                    unchecked.add(collection)
                _add(findings, collection, found, images)
                if repair:
                    repair_rows(catalog, store, collection, found)
        findings.add("unchecked_version", collection, unchecked)

    def _open(self, info: EncoderInfo) -> AbstractContextManager[Compare | None]:
        if info.collection in self.configured:
            return self.open_checker(self.configured[info.collection][1], info)
        if self.context.catalog.versions.settings(info.collection) is None:
            return nullcontext()
        current = self.context.settings.encoders[info.name]
        return self.open_checker(as_it_was(self.context.catalog, current, info), info)


def _add(findings: Findings, collection: str, found: Differences, images: Mapping[str, StoredImage]) -> None:
    products = {key: image.product_id for key, image in images.items()}
    for kind, keys in found.items():
        findings.add(kind, collection, keys, products)


def verify(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Compare, and repair where requested; returns the differences, and those that are left.

    Raises:
        Conflict: another verification is running; the message holds its id.
        InvalidInput: there is no such model.
        StoreUnknown: Milvus is not the one that the ledger describes.
        Unavailable: the database, the files or Milvus do not answer.
    """
    assert isinstance(args, VerifyArgs)
    context.run.claim("the verification")
    # Each run draws another sample, unless the seed is given.
    seed = random.randrange(_SEEDS) if args.seed is None else args.seed
    with open_store(context) as store:
        configured = _configured(context, args.model)
        sample = Sample(args.percent, seed)
        verification = Verification(context, store, configured, on_cluster(context.settings), sample)
        differences = verification.look(args.model, args.repair)
        result: dict[str, Any] = {
            "seed": seed,
            "checked": verification.checked,
            "differences": differences.report(),
        }
        if args.repair and differences:
            verification.rebuild(differences, _builder(context))
            result["left"] = verification.look(args.model).report()
    return result | {"agrees": not result.get("left", result["differences"])}


def adopt(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Adopt the configured Milvus as the catalog's own; returns its id and whether the ledger was kept.

    Raises:
        Conflict: it is the catalog's own already.
        Unavailable: the database or Milvus does not answer.
    """
    assert isinstance(args, AdoptArgs)
    ledger = context.catalog.ledger
    with open_store(context, known=False) as store:
        former = ledger.store_id()
        if former in store.marks():
            raise Conflict(
                "the configured Milvus is the catalog's own: nothing is lost, and nothing to adopt"
            )
        if not args.keep_index:
            # A new id, so that the new store cannot be confused with the former one.
            ledger.forget_store(former)
        store_id = ledger.make_store_id()
        store.set_mark(store_id)
    return {"store_id": store_id, "former_store_id": former, "index_kept": args.keep_index}


def _configured(context: JobContext, model: str | None) -> Configured:
    """Load the configured encoders of the model, or of all registered models, to find their versions."""
    if model is not None:
        context.settings.encoder(model, {})
    known = {info.name for info in context.catalog.ledger.versions()}
    found = {}
    for name, encoder in context.settings.encoders.items():
        if name in known and model in (None, name):
            context.run.report(stage=f"loading {name}")
            info = describe(encoder, context.settings)
            found[info.collection] = (info, encoder)
    return found


def _builder(context: JobContext) -> Callable[[EncoderInfo, EncoderSettings], object]:
    # Without the gap that a build leaves to live traffic: everything is repaired.
    bulk = context.settings.bulk.model_copy(update={"gap_threshold": 0})
    settings = replace(context.settings, bulk=bulk)

    def build(info: EncoderInfo, encoder: EncoderSettings) -> object:
        return complete(context.run, settings, context.catalog, encoder, info)

    return build
