"""Indexing and captioning of the catalog's images, for writes and for the repair."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from core.batching import MAX_ENCODE_BYTES, batched_by_bytes
from core.errors import (
    Internal,
    InvalidInput,
    NotFound,
    Unavailable,
    UnsupportedModality,
    VitrineError,
    expected,
)
from core.index_rows import Failure, IndexRows
from core.ports import Blobs, Captions, EncoderClient, Ledger, VectorStore
from core.types import (
    PROBE,
    Captioned,
    Encoded,
    EncoderInfo,
    EncoderInput,
    IndexItem,
    ProductImage,
    VectorRow,
)

T = TypeVar("T")
IndexState = Literal["indexed", "pending", "failed"]
_State = IndexState | Literal["obsolete"]

BUGS_EVERY_S = 300.0
"""Interval at which passes retry what met a bug of another release, in seconds. While a release rolls out, the
encoder that answers may still be of the previous one."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Outcome of one pass: images indexed, images put into quarantine, and obsolete rows removed."""

    indexed: int = 0
    failed: int = 0
    removed: int = 0

    def __add__(self, other: "RepairReport") -> "RepairReport":
        return RepairReport(
            self.indexed + other.indexed, self.failed + other.failed, self.removed + other.removed
        )


class Indexer:
    """Indexes images with one encoder; `IndexRows` explains why nothing is lost."""

    def __init__(
        self,
        encoder: EncoderClient,
        store: VectorStore,
        ledger: Ledger,
        blobs: Blobs,
        rows: IndexRows | None = None,
    ) -> None:
        self._encoder = encoder
        self._rows = IndexRows(store, ledger) if rows is None else rows
        self._ledger = ledger
        self._blobs = blobs
        self._bugs_at: dict[str, float] = {}

    async def describe(self) -> EncoderInfo:
        """Return the version that serves, after preparing its collection."""
        info = await self._encoder.describe()
        await _call(self._rows.prepare, info)
        return info

    async def index(self, items: Sequence[IndexItem]) -> dict[str, IndexState]:
        """Embed and write these images; returns the state by image id. Temporary failures are pending.

        Images that became obsolete meanwhile have no state: they are gone, or missing at another revision.

        Raises:
            Internal: the encoder fails on every input; the images are still missing.
        """
        if not items:
            return {}
        try:
            return await self._index(items)
        except (Unavailable, NotFound):
            return {item.image_id: "pending" for item in items}

    async def repair(self, batch_size: int = 64, grace_s: float = 0.0) -> RepairReport:
        """Index what is missing and remove what is obsolete, until the gap is closed.

        Raises:
            Unavailable: the encoder or the store does not answer; finished work stays.
            Internal: the encoder fails on every input.
        """
        report = await self.index_missing(batch_size, grace_s)
        return report + await self.remove_obsolete(batch_size, grace_s)

    async def index_missing(self, batch_size: int = 64, grace_s: float = 0.0) -> RepairReport:
        """Index what the version that serves lacks, until nothing is missing.

        Raises:
            Unavailable: the encoder or the store does not answer; finished work stays.
            Internal: the encoder fails on every input.
        """
        report = RepairReport()
        # A collection may be lost although the ledger shows no gap.
        self._rows.look_again()
        while True:
            # Again for each batch: other weights may begin to serve.
            info = await self.describe()
            await self._retry_bugs(info.collection)
            items = await _call(self._ledger.missing, info.collection, batch_size, grace_s)
            if not items:
                return report
            states = await self._index(items)
            counts = list(states.values())
            report += RepairReport(indexed=counts.count("indexed"), failed=counts.count("failed"))
            if "pending" in counts:
                return report

    async def remove_obsolete(self, batch_size: int = 64, grace_s: float = 0.0) -> RepairReport:
        """Remove obsolete rows in every version of the model, until none is left.

        Raises:
            Unavailable: the encoder or the store does not answer; finished work stays.
        """
        info = await self.describe()
        removed = await _call(self._rows.remove_obsolete_of_model, info, batch_size, grace_s)
        return RepairReport(removed=removed)

    async def _retry_bugs(self, collection: str) -> None:
        now = time.monotonic()
        if now >= self._bugs_at.get(collection, now):
            await _call(self._ledger.retry_bugs, collection)
            self._bugs_at[collection] = now + BUGS_EVERY_S

    async def _index(self, items: Sequence[IndexItem]) -> dict[str, IndexState]:
        announced = await self.describe()
        await _call(self._ledger.open, announced.collection, items)
        states: dict[str, _State] = {item.image_id: "pending" for item in items}
        held = await _call(self._rows.vectors, announced, items)
        same = [VectorRow(item, held[item.image_id]) for item in items if item.image_id in held]
        if same:
            states |= await self._write(announced, same)
        unknown = [item for item in items if item.image_id not in held]
        # The files of a batch are freed before the next batch is read.
        for batch in batched_by_bytes(unknown, lambda item: item.bytes):
            states |= await self._index_files(announced, batch)
        return {image_id: state for image_id, state in states.items() if state != "obsolete"}

    async def _index_files(self, announced: EncoderInfo, items: Sequence[IndexItem]) -> dict[str, _State]:
        readable, unreadable = await self._read(items)
        await _call(self._ledger.fail, announced.collection, unreadable)
        failed: dict[str, _State] = {item.image_id: "failed" for item, _ in unreadable}
        return failed | (await self._encode(announced, readable) if readable else {})

    async def _encode(
        self, announced: EncoderInfo, readable: Sequence[tuple[IndexItem, bytes]]
    ) -> dict[str, _State]:
        try:
            encoded = await self._asked([data for _, data in readable])
        except Internal as error:
            return await self._encode_apart(announced, readable, error)
        items = [item for item, _ in readable]
        if encoded.info.collection != announced.collection:
            # The replica that encoded has other weights than the one that answered describe().
            await _call(self._rows.prepare, encoded.info)
            await _call(self._ledger.open, encoded.info.collection, items)
        return await self._write(encoded.info, *_split(items, encoded))

    async def _encode_apart(
        self, announced: EncoderInfo, readable: Sequence[tuple[IndexItem, bytes]], error: Internal
    ) -> dict[str, _State]:
        """Find the images on which a call fails, by halving it; those that fail alone go into quarantine."""
        # An encoder that fails on a sound image is broken itself.
        if isinstance((await self._asked([PROBE])).vectors[0], VitrineError):
            raise error
        if len(readable) == 1:
            item = readable[0][0]
            await _call(self._ledger.fail, announced.collection, [(item, error)])
            return {item.image_id: "failed"}
        half = len(readable) // 2
        states = await self._encode(announced, readable[:half])
        return states | await self._encode(announced, readable[half:])

    async def _asked(self, inputs: Sequence[EncoderInput]) -> Encoded:
        try:
            return await self._encoder.encode(inputs)
        except VitrineError:
            raise
        except Exception as error:
            # A model in this process raises any error.
            raise expected(error, f"encoding with {self._encoder.name}") from error

    async def _write(
        self, info: EncoderInfo, rows: Sequence[VectorRow], broken: Sequence[Failure] = ()
    ) -> dict[str, _State]:
        written = await _call(self._rows.write, info, rows)
        failures = [*broken, *written.refused]
        await _call(self._ledger.fail, info.collection, failures)
        states: dict[str, _State] = {item.image_id: "failed" for item, _ in failures}
        states |= {item.image_id: "obsolete" for item in written.obsolete}
        return states | {item.image_id: "indexed" for item in written.settled}

    async def _read(self, items: Sequence[IndexItem]) -> tuple[list[tuple[IndexItem, bytes]], list[Failure]]:
        # All at once: an object store takes as long for one file as for many.
        contents = await asyncio.gather(*(_call(self._blob, item) for item in items))
        pairs = list(zip(items, contents, strict=True))
        readable = [(item, content) for item, content in pairs if isinstance(content, bytes)]
        return readable, [(item, content) for item, content in pairs if isinstance(content, NotFound)]

    def _blob(self, item: IndexItem) -> bytes | NotFound:
        try:
            return self._blobs.get(item.sha256)
        except NotFound as error:
            return error


def _split(items: Sequence[IndexItem], encoded: Encoded) -> tuple[list[VectorRow], list[Failure]]:
    rows: list[VectorRow] = []
    failures: list[Failure] = []
    for item, vector in zip(items, encoded.vectors, strict=True):
        # A bug would repeat, so the image goes into quarantine until another release tries it.
        if isinstance(vector, InvalidInput | Internal):
            failures.append((item, vector))
        elif not isinstance(vector, VitrineError):
            rows.append(VectorRow(item, vector))
    return rows, failures


async def _call(function: Callable[..., T], *args: object) -> T:
    """Run a blocking call of a port in a thread."""
    return await asyncio.to_thread(function, *args)


@dataclass(frozen=True, slots=True)
class CaptionReport:
    """Outcome of one pass: captions written, images put into quarantine, rows of deleted images removed."""

    written: int = 0
    failed: int = 0
    removed: int = 0

    def __add__(self, other: "CaptionReport") -> "CaptionReport":
        return CaptionReport(
            self.written + other.written, self.failed + other.failed, self.removed + other.removed
        )


class Captioner:
    """Captions images with one encoder.

    Captions are stored batch by batch, so a killed pass resumes where it was. Two passes at once only do some work
    twice.
    """

    def __init__(self, encoder: EncoderClient, captions: Captions, blobs: Blobs) -> None:
        self._encoder = encoder
        self._captions = captions
        self._blobs = blobs
        self._bugs_at = 0.0

    async def repair(self, batch_size: int = 8) -> CaptionReport:
        """Caption images until none is missing, and delete captions of deleted images.

        Raises:
            UnsupportedModality: the encoder writes no captions.
            Unavailable: the encoder does not answer; finished work stays.
        """
        info = await self._encoder.describe()
        if info.captions is None:
            raise UnsupportedModality(
                f"model {info.name!r} writes no captions: its configuration does not ask for them"
            )
        if time.monotonic() >= self._bugs_at:
            await _call(self._captions.retry_bugs, info.name)
            self._bugs_at = time.monotonic() + BUGS_EVERY_S
        report = CaptionReport(removed=await _call(self._captions.forget_gone))
        while images := await _call(self._captions.missing, info.name, info.captions, batch_size):
            done = await self._caption(info, info.captions, images)
            report += done
            if done == CaptionReport():
                break
        return report

    async def _caption(
        self, info: EncoderInfo, version: str, images: Sequence[ProductImage]
    ) -> CaptionReport:
        readable, failures = await self._read(images)
        written: list[tuple[str, str]] = []
        if readable:
            captioned = await self._encoder.caption([data for _, data in readable])
            if captioned.info.captions != version:
                # A rolling update is running; captions of the other version are of use once it has finished.
                return CaptionReport()
            written, broken = _split_captions([image for image, _ in readable], captioned)
            failures += broken
        await _call(self._captions.put, info.name, version, written)
        await _call(self._captions.fail, info.name, version, failures)
        return CaptionReport(written=len(written), failed=len(failures))

    async def _read(
        self, images: Sequence[ProductImage]
    ) -> tuple[list[tuple[ProductImage, bytes]], list[tuple[str, VitrineError]]]:
        """Read files up to the size of one call; the others stay missing."""
        readable: list[tuple[ProductImage, bytes]] = []
        failures: list[tuple[str, VitrineError]] = []
        size = 0
        for image in images:
            size += image.bytes
            if readable and size > MAX_ENCODE_BYTES:
                break
            try:
                readable.append((image, await _call(self._blobs.get, image.sha256)))
            except NotFound as error:
                failures.append((image.image_id, error))
        return readable, failures


def _split_captions(
    images: Sequence[ProductImage], captioned: Captioned
) -> tuple[list[tuple[str, str]], list[tuple[str, VitrineError]]]:
    """Split into captions and failures by image id; temporary failures are in neither."""
    answers = [(image.image_id, text) for image, text in zip(images, captioned.texts, strict=True)]
    written = [(image_id, text) for image_id, text in answers if isinstance(text, str)]
    return written, [
        (image_id, text) for image_id, text in answers if isinstance(text, InvalidInput | Internal)
    ]
