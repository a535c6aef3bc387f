"""Indexing and captioning of the catalog's images, for writes, for the repair and for builds."""

import asyncio
import operator
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import astuple, dataclass, field
from types import MappingProxyType
from typing import Generic, Literal, Self, TypeVar

from core.concurrency import batched_by_bytes
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
from core.types import PROBE, EncoderInfo, IndexItem, ProductImage, Vector, VectorRow

T = TypeVar("T")
A = TypeVar("A")
Image = TypeVar("Image", IndexItem, ProductImage)
IndexState = Literal["indexed", "pending", "failed"]
_State = IndexState | Literal["obsolete"]

BUGS_EVERY_S = 300.0
"""Seconds between two retries of images that failed by a bug of another release. There are several retries, because
the previous release may still answer while a new one rolls out."""


@dataclass(frozen=True)
class _Report:
    def __add__(self, other: Self) -> Self:
        return type(self)(*map(operator.add, astuple(self), astuple(other)))


@dataclass(frozen=True)
class RepairReport(_Report):
    """Outcome of one repair: images indexed, images quarantined, and obsolete rows removed."""

    indexed: int = 0
    failed: int = 0
    removed: int = 0


@dataclass(frozen=True)
class CaptionReport(_Report):
    """Outcome of one repair: captions written, images quarantined, and captions of deleted images removed."""

    written: int = 0
    failed: int = 0
    removed: int = 0


class _BugRetries:
    """Releases images from quarantine, once per interval, if a bug of another release put them there."""

    def __init__(self, retry: Callable[[str], int]) -> None:
        self._retry = retry
        self._due_at: dict[str, float] = {}

    async def when_due(self, name: str) -> None:
        now = time.monotonic()
        if now >= self._due_at.get(name, now):
            await _call(self._retry, name)
            self._due_at[name] = now + BUGS_EVERY_S


@dataclass(frozen=True, slots=True)
class IndexInput:
    """An image to index, with what its writer knows of it.

    `data` is the file, where it is at hand. `opened` names the collections in which the writer has opened the row,
    `settled` those that hold it already. `former` has rows of other revisions, which may hold the same vector, as
    row keys by collection.
    """

    item: IndexItem
    data: bytes | None = None
    opened: Set[str] = frozenset()
    settled: Set[str] = frozenset()
    former: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """Images that Milvus holds now but whose rows are not settled, images that are settled, and failures."""

    collection: str
    written: Sequence[IndexItem] = ()
    settled: Sequence[IndexItem] = ()
    failed: Sequence[Failure] = ()


class Indexer:
    """Indexes images with one encoder. `IndexRows` explains why no image is lost."""

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
        self._bugs = _BugRetries(ledger.retry_bugs)
        self.serving: EncoderInfo | None = None
        """The version that served when the encoder was last asked."""

    async def describe(self) -> EncoderInfo:
        """Prepare the collection of the version that serves, and return that version."""
        self.serving = info = await self._encoder.describe()
        if not self._rows.is_prepared(info):
            await _call(self._rows.prepare, info)
        return info

    async def index(self, items: Sequence[IndexItem]) -> dict[str, IndexState]:
        """Embed and write these images; return the state by image id. Temporary failures are `pending`.

        An image that became obsolete meanwhile has no state: it is deleted, or missing in a newer revision.

        Raises:
            Internal: the encoder fails on every input; the images are still missing.
        """
        if not items:
            return {}
        try:
            return await self._index(items)
        except (Unavailable, NotFound):
            return {item.image_id: "pending" for item in items}

    async def place(self, inputs: Sequence[IndexInput]) -> AsyncIterator[Placed]:
        """Embed images and write them to Milvus, in one or several steps; the caller settles what is written.

        Images that are in no step have failed temporarily.

        Raises:
            Unavailable: the encoder or the store does not answer.
            NotFound: the collection was lost.
            Internal: the encoder fails on every input.
        """
        announced = await self.describe()
        settled = [each.item for each in inputs if announced.collection in each.settled]
        if settled:
            yield Placed(announced.collection, settled=settled)
        inputs = [each for each in inputs if announced.collection not in each.settled]
        await self._open(announced, inputs)
        held = await self._copies(announced, inputs)
        if same := [VectorRow(each.item, held[each.item.image_id]) for each in inputs if _id(each) in held]:
            yield await self._upsert(announced, same, [])
        unknown = {each.item.key: each for each in inputs if _id(each) not in held}
        files = {each.item.sha256: each.data for each in unknown.values() if each.data is not None}
        async for answer in _answers(
            self._encode, self._blobs, [each.item for each in unknown.values()], files
        ):
            info = answer.info or announced
            if info.collection != announced.collection:
                # The replica that encoded has other weights than the one that answered describe().
                await _call(self._rows.prepare, info)
                await self._open(info, [unknown[item.key] for item, _ in answer.done])
            rows = [VectorRow(item, vector) for item, vector in answer.done]
            yield await self._upsert(info, rows, answer.failed)

    async def index_missing(
        self, batch_size: int = 64, grace_s: float = 0.0, full: bool = True
    ) -> RepairReport:
        """Index the images that the serving version lacks, until none is missing or one fails temporarily.

        `full` asks Milvus first whether the collection is still there: one may be lost although the ledger shows no
        gap.

        Raises:
            Unavailable: the encoder or the store does not answer; finished work is kept.
            Internal: the encoder fails on every input.
        """
        report = RepairReport()
        if full:
            self._rows.look_again()
        while True:
            # For each batch, because other weights may begin to serve.
            info = await self.describe()
            await self._bugs.when_due(info.collection)
            items = await _call(self._ledger.missing, info.collection, batch_size, grace_s)
            if not items:
                return report
            states = await self._index(items)
            counts = list(states.values())
            report += RepairReport(indexed=counts.count("indexed"), failed=counts.count("failed"))
            if "pending" in counts:
                return report

    async def remove_obsolete(
        self, batch_size: int = 64, grace_s: float = 0.0, full: bool = True
    ) -> RepairReport:
        """Remove obsolete rows in the serving version, and if `full` in every version, until none is left.

        Raises:
            Unavailable: the encoder or the store does not answer; finished work stays.
        """
        info = await self.describe()
        remove = self._rows.remove_obsolete_of_model if full else self._rows.remove_obsolete
        removed = await _call(remove, info if full else info.collection, batch_size, grace_s)
        return RepairReport(removed=removed)

    async def _index(self, items: Sequence[IndexItem]) -> dict[str, IndexState]:
        states: dict[str, _State] = {item.image_id: "pending" for item in items}
        async for placed in self.place([IndexInput(item) for item in items]):
            rows = await _call(self._rows.settle, {placed.collection: placed.written})
            for item in placed.written:
                match rows.get((placed.collection, item.key)):
                    case "settled":
                        states[item.image_id] = "indexed"
                    case "obsolete":
                        states[item.image_id] = "obsolete"
            states |= {item.image_id: "failed" for item, _ in placed.failed}
        return {image_id: state for image_id, state in states.items() if state != "obsolete"}

    async def _open(self, info: EncoderInfo, inputs: Sequence[IndexInput]) -> None:
        """Announce the rows that the writer has not opened itself."""
        if items := [each.item for each in inputs if info.collection not in each.opened]:
            await _call(self._ledger.open, info.collection, items)

    async def _copies(self, info: EncoderInfo, inputs: Sequence[IndexInput]) -> Mapping[str, Vector]:
        known = {
            _id(each): [(info.collection, key) for key in keys]
            for each in inputs
            if (keys := each.former.get(info.collection))
        }
        # With the file at hand, encoding costs less than asking the ledger where else the vector may be.
        asked = [_id(each) for each in inputs if each.data is None]
        return await _call(self._rows.copies, info, asked, known) if asked or known else {}

    async def _encode(self, files: Sequence[bytes]) -> "_Encoded[Vector]":
        encoded = await self._encoder.encode(files)
        return encoded.info, encoded.vectors

    async def _upsert(
        self, info: EncoderInfo, rows: Sequence[VectorRow], broken: Sequence[Failure]
    ) -> Placed:
        failures = [*broken, *(await _call(self._rows.upsert, info, rows))]
        if failures:
            await _call(self._ledger.fail, info.collection, failures)
        refused = {item.key for item, _ in failures}
        written = [row.item for row in rows if row.item.key not in refused]
        return Placed(info.collection, written, failed=failures)


def _id(of: IndexInput) -> str:
    return of.item.image_id


class Captioner:
    """Captions images with one encoder.

    Captions are stored batch by batch, so a repair that was killed resumes where it stopped. Two repairs at the same
    time do some work twice, without other harm.
    """

    def __init__(self, encoder: EncoderClient, captions: Captions, blobs: Blobs) -> None:
        self._encoder = encoder
        self._captions = captions
        self._blobs = blobs
        self._bugs = _BugRetries(captions.retry_bugs)

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
        await self._bugs.when_due(info.name)
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
        report = CaptionReport()
        async for answer in _answers(self._ask, self._blobs, images):
            if answer.info is not None and answer.info.captions != version:
                # During a rolling update another version may answer. Its captions would be stored as this version's.
                continue
            written = [(image.image_id, text) for image, text in answer.done]
            failures = [(image.image_id, error) for image, error in answer.failed]
            await _call(self._captions.put, info.name, version, written)
            await _call(self._captions.fail, info.name, version, failures)
            report += CaptionReport(len(written), len(failures))
        return report

    async def _ask(self, files: Sequence[bytes]) -> "_Encoded[str]":
        captioned = await self._encoder.caption(files)
        return captioned.info, captioned.texts


_Encoded = tuple[EncoderInfo, Sequence[A | VitrineError]]
"""Version that answered, and an answer or an error for each image."""
_Ask = Callable[[Sequence[bytes]], Awaitable[_Encoded[A]]]


@dataclass(frozen=True, slots=True)
class _Answers(Generic[Image, A]):
    """Answers for some images, and permanent errors for others; images that failed temporarily are in neither.

    `info` is the version that answered; None if none did.
    """

    info: EncoderInfo | None
    done: Sequence[tuple[Image, A]]
    failed: Sequence[tuple[Image, VitrineError]]


async def _answers(
    ask: _Ask[A], blobs: Blobs, images: Sequence[Image], at_hand: Mapping[str, bytes] = MappingProxyType({})
) -> AsyncIterator[_Answers[Image, A]]:
    """Ask an encoder about images, in batches that a call can carry; files that are not at hand are read.

    Raises:
        Internal: the encoder fails on every input.
    """
    for batch in batched_by_bytes(images, lambda image: image.bytes):
        files, lost = await _read(blobs, batch, at_hand)
        if lost:
            yield _Answers(None, [], lost)
        if files:
            async for answer in _answers_of(ask, files):
                yield answer
        # Frees this batch before the next one is read.
        del files


async def _read(
    blobs: Blobs, images: Sequence[Image], at_hand: Mapping[str, bytes]
) -> tuple[list[tuple[Image, bytes]], list[tuple[Image, NotFound]]]:
    """Read the files of images; return the files that exist, and an error for each that does not."""

    def content(sha256: str) -> bytes | NotFound:
        try:
            return blobs.get(sha256)
        except NotFound as error:
            return error

    # All at once: an object store takes as long for one file as for many.
    unread = list(dict.fromkeys(image.sha256 for image in images if image.sha256 not in at_hand))
    read = await asyncio.gather(*(_call(content, sha256) for sha256 in unread))
    contents = {**at_hand, **dict(zip(unread, read, strict=True))}
    pairs = [(image, contents[image.sha256]) for image in images]
    files = [(image, found) for image, found in pairs if isinstance(found, bytes)]
    return files, [(image, found) for image, found in pairs if isinstance(found, NotFound)]


async def _answers_of(
    ask: _Ask[A], files: Sequence[tuple[Image, bytes]]
) -> AsyncIterator[_Answers[Image, A]]:
    """Send all images in one call; if the call fails as a whole, halve it until single images fail."""
    try:
        info, answers = await _asked(ask, [content for _, content in files])
    except Internal as error:
        # An encoder that fails on a valid image is broken itself. An encoder that refuses the image is not.
        (probed,) = (await _asked(ask, [PROBE]))[1]
        if isinstance(probed, VitrineError) and not isinstance(probed, InvalidInput):
            raise error
        if len(files) == 1:
            yield _Answers(None, [], [(files[0][0], error)])
            return
        for half in (files[: len(files) // 2], files[len(files) // 2 :]):
            async for answer in _answers_of(ask, half):
                yield answer
        return
    pairs = [(image, answer) for (image, _), answer in zip(files, answers, strict=True)]
    done = [(image, answer) for image, answer in pairs if not isinstance(answer, VitrineError)]
    # A bug would repeat, so the image goes into quarantine until another release tries it.
    failed = [(image, answer) for image, answer in pairs if isinstance(answer, InvalidInput | Internal)]
    yield _Answers(info, done, failed)


async def _asked(ask: _Ask[A], files: Sequence[bytes]) -> _Encoded[A]:
    try:
        return await ask(files)
    except VitrineError:
        raise
    except Exception as error:
        # A model in this process may raise any error.
        raise expected(error, "encoding images") from error


async def _call(function: Callable[..., T], *args: object) -> T:
    """Run a blocking call of a port in a thread."""
    return await asyncio.to_thread(function, *args)
