"""Jobs `verify`, which compares catalog, ledger, Milvus and files, and `adopt`, which confirms another Milvus."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import Any

from catalog.ledger_queries import StoredImage
from catalog.opening import Catalog
from core.errors import Conflict
from core.jobs import AdoptArgs, JobArgs, VerifyArgs
from core.ports import VectorStore
from core.types import EncoderInfo
from jobs.build.build import complete, describe
from jobs.build.shards import Shard, cut
from jobs.runner.context import JobContext, JobRun, open_store
from jobs.runner.settings import EncoderSettings
from jobs.upgrade.rollout import as_it_was
from jobs.verification.checks import FILES_AT_ONCE, check_files, compare_rows, repair_rows
from jobs.verification.differences import EXAMPLES, Differences, Findings, Sample
from jobs.verification.vectors import Compare, OpenChecker, on_cluster

_IMAGES_A_RANGE = 4096
_SEEDS = 2**31


class VersionCheck:
    """Checks a version whose collection exists, and repairs its rows where requested.

    `open_checker` is called when there is something to encode. `configured`: every image should be in this
    version's collection.
    """

    def __init__(
        self,
        run: JobRun,
        catalog: Catalog,
        store: VectorStore,
        info: EncoderInfo,
        configured: bool,
        open_checker: Callable[[], AbstractContextManager[Compare | None]],
    ) -> None:
        self._run = run
        self._catalog = catalog
        self._store = store
        self._info = info
        self._configured = configured
        self._open_checker = open_checker
        self._compare: list[Compare | None] = []
        self.vectors = self.encoded_anew = 0

    def look(self, shards: Sequence[Shard], sample: Sample, findings: Findings, repair: bool) -> None:
        """Add the differences to the findings."""
        collection = self._info.collection
        with ExitStack() as held:
            for shard, images in self._ranges(shards):
                differences, present = compare_rows(
                    self._catalog, self._store, collection, shard, images, self._configured
                )
                self.vectors += len(present)
                some = [key for key in present if key in sample]
                differences["changed_vector"] = self._changed(held, some, images, findings)
                products = {key: image.product_id for key, image in images.items()}
                for kind, keys in differences.items():
                    findings.add(kind, collection, keys, products)
                if repair:
                    repair_rows(self._catalog, self._store, collection, differences)

    def _ranges(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, dict[str, StoredImage]]]:
        done = 0
        for shard in shards:
            self._run.check()
            images = {each.key: each for each in self._catalog.audit.images(shard.first, shard.beyond)}
            yield shard, images
            done += len(images)
            self._run.report(done=done)

    def _changed(
        self, held: ExitStack, keys: Sequence[str], images: dict[str, Any], findings: Findings
    ) -> list[str]:
        if not keys:
            return []
        if not self._compare:
            self._compare.append(held.enter_context(self._open_checker()))
            if self._compare[0] is None:
                findings.add("unchecked_version", self._info.collection, [self._info.collection])
        compare = self._compare[0]
        if compare is None:
            return []
        compared = compare([(key, images[key].sha256, images[key].bytes) for key in keys])
        self.encoded_anew += compared.vectors
        return compared.changed


Configured = Mapping[str, tuple[EncoderInfo, EncoderSettings]]
"""Configured version of each model, by collection."""


class Verification:
    """Checks files and versions range by range, so that memory grows neither with the catalog nor with the damage."""

    def __init__(
        self,
        context: JobContext,
        store: VectorStore,
        configured: Configured,
        open_checker: OpenChecker,
        sample: Sample,
    ) -> None:
        self._context = context
        self._run = context.run
        self._catalog = context.catalog
        self._store = store
        self._configured = configured
        self._open_checker = open_checker
        self._sample = sample
        self.checked: dict[str, Any] = {}

    def look(self, model: str | None, repair: bool = False) -> Findings:
        """Check every image file and every version of the model, or of all models.

        `repair` makes rows that differ consistent; `rebuild` encodes what is missing then.
        """
        findings = Findings()
        images = self._catalog.products.counts()[1]
        self.checked = {
            "images": images,
            "unnamed_files": self._catalog.image_files.waiting(),
            "versions": {},
        }
        shards = cut(images, _IMAGES_A_RANGE)
        self._run.report(stage="looking at image files", total=images, done=0)
        self._look_at_files(shards, findings, repair)
        asked = [name for name in self._context.settings.encoders if model in (None, name)]
        for info in self._catalog.ledger.versions():
            if info.name in asked:
                self._run.report(stage=f"comparing {info.collection}", done=0)
                self._look_at_version(info, shards, findings, repair)
        for name in asked:
            self._look_at_captions(name, findings, repair)
        return findings

    def rebuild(self, findings: Findings, build: Callable[[EncoderInfo, EncoderSettings], object]) -> None:
        """Encode what the configured versions lack.

        Other versions are only made consistent with the ledger: a rollback to one encodes what it lacks.
        """
        for collection, (info, encoder) in self._configured.items():
            if findings.concern(collection):
                self._run.report(stage=f"repairing {collection}")
                build(info, encoder)

    def _look_at_files(self, shards: Sequence[Shard], findings: Findings, repair: bool) -> None:
        done = 0
        with ThreadPoolExecutor(FILES_AT_ONCE, "files") as pool:
            for shard in shards:
                self._run.check()
                images = list(self._catalog.audit.images(shard.first, shard.beyond))
                products = {image.key: image.product_id for image in images}
                found = check_files(self._catalog, images, self._sample.__contains__, pool)
                found = self._still_named(shard, found)
                for kind, keys in found.items():
                    findings.add(kind, "", keys, products)
                broken = {key for keys in found.values() for key in keys}
                if repair and broken:
                    # Only an import can restore the file: the next one reads it again.
                    sha256s = [image.sha256 for image in images if image.key in broken]
                    self._catalog.imported_images.forget(sha256s)
                done += len(images)
                self._run.report(done=done)

    def _still_named(self, shard: Shard, found: Differences) -> Differences:
        """Leave out images that were deleted meanwhile, since their files may be gone, too."""
        if not any(found.values()):
            return found
        named = {each.key for each in self._catalog.audit.images(shard.first, shard.beyond)}
        return {kind: [key for key in keys if key in named] for kind, keys in found.items()}

    def _look_at_version(
        self, info: EncoderInfo, shards: Sequence[Shard], findings: Findings, repair: bool
    ) -> None:
        collection, ledger = info.collection, self._catalog.ledger
        configured = collection in self._configured
        check = VersionCheck(
            self._run, self._catalog, self._store, info, configured, lambda: self._open(info)
        )
        if self._store.has_collection(collection):
            check.look(shards, self._sample, findings, repair)
        else:
            counts = ledger.counts(collection)
            if configured or counts.indexed or counts.failed:
                lost = max(1, counts.indexed)
                findings.add("missing_collection", collection, [collection], number=lost)
            if repair:
                ledger.reset(collection)
        self.checked["versions"][collection] = {
            "vectors": check.vectors,
            "encoded_anew": check.encoded_anew,
        }

    def _look_at_captions(self, model: str, findings: Findings, repair: bool) -> None:
        number, some = self._catalog.captions.quarantined(model, EXAMPLES)
        findings.add("quarantined_caption", "", some.keys(), some, number)
        if repair and number:
            self._catalog.captions.retry(model)

    def _open(self, info: EncoderInfo) -> AbstractContextManager[Compare | None]:
        if info.collection in self._configured:
            return self._open_checker(self._configured[info.collection][1], info)
        if self._catalog.versions.settings(info.collection) is None:
            return nullcontext()
        current = self._context.settings.encoders[info.name]
        return self._open_checker(as_it_was(self._catalog, current, info), info)


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
            info = describe(encoder, context.settings.bulk)
            found[info.collection] = (info, encoder)
    return found


def _builder(context: JobContext) -> Callable[[EncoderInfo, EncoderSettings], object]:
    # Without the gap that a build leaves to live traffic: everything is repaired.
    bulk = context.settings.bulk.model_copy(update={"gap_threshold": 0})
    settings = replace(context.settings, bulk=bulk)

    def build(info: EncoderInfo, encoder: EncoderSettings) -> object:
        return complete(context.run, settings, context.catalog, encoder, info)

    return build
