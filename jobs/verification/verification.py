"""One look at everything that should agree, and the repair of what does not."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from core.ports import VectorStore
from core.types import EncoderInfo
from jobs.context import JobContext
from jobs.settings import EncoderSettings
from jobs.shards import Shard, cut
from jobs.upgrade.targets import as_it_was
from jobs.verification.checker import Compare, OpenChecker
from jobs.verification.differences import EXAMPLES, Differences, Findings
from jobs.verification.files import FILES_AT_ONCE, check_files
from jobs.verification.sample import Sample
from jobs.verification.version import VersionCheck

Configured = Mapping[str, tuple[EncoderInfo, EncoderSettings]]
"""The configured version of each model, by its collection."""
_PICTURES_A_RANGE = 4096


class Verification:
    """Looks at files and versions range by range: memory grows neither with the catalog nor with the damage."""

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
        """Look at every picture's file and at every version of the model, or of all models.

        `repair` brings rows that differ in step on the way; `rebuild` encodes what is missing then.
        """
        findings = Findings()
        pictures = self._catalog.products.counts()[1]
        self.checked = {
            "pictures": pictures,
            "unnamed_files": self._catalog.image_files.waiting(),
            "versions": {},
        }
        shards = cut(pictures, _PICTURES_A_RANGE)
        self._run.report(stage="looking at picture files", total=pictures, done=0)
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

        Versions that are not configured are only brought in step with the ledger: should one come back,
        its rollback encodes what it lacks.
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
                pictures = list(self._catalog.audit.pictures(shard.first, shard.beyond))
                products = {picture.key: picture.product_id for picture in pictures}
                found = check_files(self._catalog, pictures, self._sample.__contains__, pool)
                found = self._still_named(shard, found)
                for kind, keys in found.items():
                    findings.add(kind, "", keys, products)
                broken = {key for keys in found.values() for key in keys}
                if repair and broken:
                    # All that can be done from here: an import that has brought the file brings it again.
                    sha256s = [picture.sha256 for picture in pictures if picture.key in broken]
                    self._catalog.imported_pictures.forget(sha256s)
                done += len(pictures)
                self._run.report(done=done)

    def _still_named(self, shard: Shard, found: Differences) -> Differences:
        """Leave out images that have gone meanwhile: their files may go too."""
        if not any(found.values()):
            return found
        named = {each.key for each in self._catalog.audit.pictures(shard.first, shard.beyond)}
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
