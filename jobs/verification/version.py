"""One version of a model looked through, a range of image ids at a time, so that memory stays flat."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from catalog.audit import StoredPicture
from catalog.opening import Catalog
from core.ports import VectorStore
from core.types import EncoderInfo
from jobs.run import JobRun
from jobs.shards import Shard
from jobs.verification.checker import Compare
from jobs.verification.differences import Findings
from jobs.verification.repairs import repair_rows
from jobs.verification.rows import compare_rows
from jobs.verification.sample import Sample


class VersionCheck:
    """Looks at a version whose collection is there, and repairs its rows on the way if asked to.

    `open_checker` is called once there is something to encode anew. `configured`: every picture should be
    in this version's collection.
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
        """Add what differs to the findings."""
        collection = self._info.collection
        with ExitStack() as held:
            for shard, pictures in self._ranges(shards):
                differences, present = compare_rows(
                    self._catalog, self._store, collection, shard, pictures, self._configured
                )
                self.vectors += len(present)
                some = [key for key in present if key in sample]
                differences["changed_vector"] = self._changed(held, some, pictures, findings)
                products = {key: picture.product_id for key, picture in pictures.items()}
                for kind, keys in differences.items():
                    findings.add(kind, collection, keys, products)
                if repair:
                    repair_rows(self._catalog, self._store, collection, differences)

    def _ranges(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, dict[str, StoredPicture]]]:
        done = 0
        for shard in shards:
            self._run.check()
            pictures = {each.key: each for each in self._catalog.audit.pictures(shard.first, shard.beyond)}
            yield shard, pictures
            done += len(pictures)
            self._run.report(done=done)

    def _changed(
        self, held: ExitStack, keys: Sequence[str], pictures: dict[str, Any], findings: Findings
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
        compared = compare([(key, pictures[key].sha256, pictures[key].bytes) for key in keys])
        self.encoded_anew += compared.vectors
        return compared.changed
