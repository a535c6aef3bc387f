"""Bring pictures into a model's collection, and keep collection, ledger and catalog in step."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from core.errors import InvalidInput, NotFound, Unavailable, VitrineError
from core.ports import Blobs, EncoderClient, Ledger, VectorStore
from core.types import Encoded, EncoderInfo, IndexItem, VectorRow

T = TypeVar("T")
IndexState = Literal["indexed", "pending", "failed"]
MAX_ENCODE_BYTES = 16 * 2**20
"""Picture files of one call to an encoder: what carries the call takes 64 MB at most."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one pass did: pictures indexed, put into quarantine, and obsolete rows removed."""

    indexed: int = 0
    failed: int = 0
    removed: int = 0

    def __add__(self, other: "SweepReport") -> "SweepReport":
        return SweepReport(
            self.indexed + other.indexed, self.failed + other.failed, self.removed + other.removed
        )


class Indexer:
    """Index pictures with one encoder.

    The order of steps is what keeps the promise that nothing is lost: the ledger announces a row before
    Milvus may hold it and settles it after Milvus does, so a crash at any point leaves either a missing
    row, which the next sweep writes, or an obsolete one, which it removes.
    """

    def __init__(self, encoder: EncoderClient, store: VectorStore, ledger: Ledger, blobs: Blobs) -> None:
        self._encoder = encoder
        self._store = store
        self._ledger = ledger
        self._blobs = blobs
        self._prepared: set[str] = set()

    async def describe(self) -> EncoderInfo:
        """Say which version serves, with its collection ready to be written and searched."""
        info = await self._encoder.describe()
        await self._prepare(info)
        return info

    async def index(self, items: Sequence[IndexItem]) -> dict[str, IndexState]:
        """Embed and write these pictures; returns the state by image id. What fails for now is pending."""
        if not items:
            return {}
        try:
            return await self._index(items)
        except (Unavailable, NotFound):
            return {item.image_id: "pending" for item in items}

    async def sweep(self, batch_size: int = 64, grace_s: float = 0.0) -> SweepReport:
        """Index what is missing and remove what is obsolete, until nothing of either is left.

        Raises:
            Unavailable: the encoder or the store is away; what was done until then is done.
        """
        report = SweepReport()
        # A collection that was lost since the last sweep must be noticed although the ledger is content.
        self._prepared.clear()
        while True:
            # Anew for each batch: when other weights begin to serve, what the old ones lack stays missing.
            info = await self.describe()
            items = await _call(self._ledger.missing, info.collection, batch_size, grace_s)
            if not items:
                break
            states = await self._index(items)
            counts = list(states.values())
            report += SweepReport(indexed=counts.count("indexed"), failed=counts.count("failed"))
            if "pending" in counts:
                break
        return report + SweepReport(removed=await self.remove_obsolete(info.collection, batch_size, grace_s))

    async def remove_obsolete(self, collection: str, batch_size: int = 64, grace_s: float = 0.0) -> int:
        """Delete the rows of pictures that are gone or have changed; returns how many."""
        removed = 0
        while keys := await _call(self._ledger.obsolete, collection, batch_size, grace_s):
            await self.remove(collection, keys)
            removed += len(keys)
        return removed

    async def remove(self, collection: str, keys: Sequence[str]) -> None:
        """Delete rows from Milvus first, then from the ledger: the other order could leave orphans."""
        await _call(self._store.delete, collection, keys)
        await _call(self._ledger.forget, collection, keys)

    async def _index(self, items: Sequence[IndexItem]) -> dict[str, IndexState]:
        announced = await self.describe()
        await _call(self._ledger.open, announced.collection, items)
        readable, unreadable = await self._read(items)
        await _call(self._ledger.fail, announced.collection, unreadable)
        states: dict[str, IndexState] = {item.image_id: "pending" for item in items}
        states |= {item.image_id: "failed" for item, _ in unreadable}
        for portion in _portions(readable):
            states |= await self._encode(announced, portion)
        return states

    async def _encode(
        self, announced: EncoderInfo, readable: Sequence[tuple[IndexItem, bytes]]
    ) -> dict[str, IndexState]:
        items = [item for item, _ in readable]
        encoded = await self._encoder.encode([data for _, data in readable])
        if encoded.info.collection != announced.collection:
            # The replica that encoded runs other weights than the one that answered describe().
            await self._prepare(encoded.info)
            await _call(self._ledger.open, encoded.info.collection, items)
        rows, broken = _split(items, encoded)
        written, refused = await self._write(encoded.info, rows)
        await _call(self._ledger.fail, encoded.info.collection, [*broken, *refused])
        states: dict[str, IndexState] = {item.image_id: "failed" for item, _ in [*broken, *refused]}
        return states | {item.image_id: "indexed" for item in written}

    async def _read(
        self, items: Sequence[IndexItem]
    ) -> tuple[list[tuple[IndexItem, bytes]], list[tuple[IndexItem, VitrineError]]]:
        readable: list[tuple[IndexItem, bytes]] = []
        failures: list[tuple[IndexItem, VitrineError]] = []
        for item in items:
            try:
                readable.append((item, await _call(self._blobs.get, item.sha256)))
            except NotFound as error:
                failures.append((item, error))
        return readable, failures

    async def _write(
        self, info: EncoderInfo, rows: Sequence[VectorRow]
    ) -> tuple[list[IndexItem], list[tuple[IndexItem, VitrineError]]]:
        """Write rows; returns what is in, and what the store refuses for good."""
        if not rows:
            return [], []
        try:
            await _call(self._store.upsert, info.collection, rows)
        except NotFound:
            # The collection was lost; the next call makes it again.
            self._prepared.discard(info.fingerprint)
            raise
        except InvalidInput as error:
            if len(rows) == 1:
                return [], [(rows[0].item, error)]
            # One row that cannot be stored must not keep its neighbours out.
            answers = [await self._write(info, [row]) for row in rows]
            return [item for ins, _ in answers for item in ins], [
                each for _, outs in answers for each in outs
            ]
        items = [row.item for row in rows]
        vanished = await _call(self._ledger.settle, info.collection, items)
        if vanished:
            # Announced again first: should another writer settle the same row now, it becomes missing.
            await _call(self._ledger.open, info.collection, vanished)
            await self.remove(info.collection, [item.key for item in vanished])
        gone = {item.key for item in vanished}
        return [item for item in items if item.key not in gone], []

    async def _prepare(self, info: EncoderInfo) -> None:
        if info.fingerprint in self._prepared:
            return
        await asyncio.to_thread(self._prepare_collection, info)
        self._prepared.add(info.fingerprint)

    def _prepare_collection(self, info: EncoderInfo) -> None:
        if info.collection not in {known.name for known in self._store.collections()}:
            # Whatever the ledger says of a collection that is not there was lost with it.
            self._ledger.reset(info.collection)
        self._store.ensure_collection(info.collection, info.dimension)
        self._ledger.register(info)
        if self._store.alias_target(info.name) is None:
            self._store.set_alias(info.name, info.collection)


def _portions(
    readable: Sequence[tuple[IndexItem, bytes]],
) -> Iterator[list[tuple[IndexItem, bytes]]]:
    portion: list[tuple[IndexItem, bytes]] = []
    size = 0
    for item, data in readable:
        if portion and size + len(data) > MAX_ENCODE_BYTES:
            yield portion
            portion, size = [], 0
        portion.append((item, data))
        size += len(data)
    if portion:
        yield portion


def _split(
    items: Sequence[IndexItem], encoded: Encoded
) -> tuple[list[VectorRow], list[tuple[IndexItem, VitrineError]]]:
    rows: list[VectorRow] = []
    failures: list[tuple[IndexItem, VitrineError]] = []
    for item, vector in zip(items, encoded.vectors, strict=True):
        if isinstance(vector, InvalidInput):
            failures.append((item, vector))
        elif not isinstance(vector, VitrineError):
            rows.append(VectorRow(item, vector))
    return rows, failures


async def _call(function: Callable[..., T], *args: object) -> T:
    """Run a blocking call of a port in a thread."""
    return await asyncio.to_thread(function, *args)
