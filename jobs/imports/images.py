"""Images of an import: read concurrently, and only where they have changed."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from catalog.fetching.fetcher import Fetcher
from catalog.imports import KnownImage
from catalog.sources.entries import ImageReference
from catalog.sources.remote import retrying
from core.errors import InputTooLarge, InvalidInput, NotFound, VitrineError
from core.ports import Blobs
from core.types import NewImage
from jobs.runner.settings import Settings
from models.images import inspect_image


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Found:
    """The image behind a reference; `data=None`: it is unchanged and in the store."""

    reference: ImageReference
    known: KnownImage
    data: bytes | None


class ImageReader:
    """Reads the images of one batch, in one event loop; an image that several products name is fetched once."""

    def __init__(
        self,
        fetcher: Fetcher,
        blobs: Blobs,
        settings: Settings,
        ask_again: bool,
        known: Mapping[str, KnownImage],
        stored: Mapping[str, KnownImage],
    ) -> None:
        """`known` are the images of former imports; `stored` are those of this batch, and grow meanwhile."""
        self._fetcher = fetcher
        self._blobs = blobs
        self._limits = settings.images
        self._max_product_bytes = settings.fetch.max_total_bytes
        self._imports = settings.imports
        self._ask_again = ask_again
        self._known = known
        self._stored = stored
        self._places = asyncio.Semaphore(settings.imports.images_at_once)
        self._asked: dict[tuple[str, bool], asyncio.Task[Found]] = {}
        # Weak, so that the bytes of an image live no longer than the put of its product.
        self._read_ones = WeakValueDictionary[str, Found]()

    async def find(self, references: Sequence[ImageReference]) -> list[Found]:
        """Find the images of one product concurrently, in their order.

        Raises:
            InvalidInput, FetchFailed: one of them cannot be read; the message names it.
        """
        budget = [self._max_product_bytes]
        reads = [self._find(each, budget) for each in references]
        found = await asyncio.gather(*reads, return_exceptions=True)
        for each, reference in zip(found, references, strict=True):
            if isinstance(each, VitrineError):
                raise each.reworded(f"image {str(reference)!r:.300}: {each.message}")
            if isinstance(each, BaseException):
                raise each
        return [each for each in found if isinstance(each, Found)]

    async def load(self, found: Sequence[Found]) -> list[NewImage]:
        """Load the bytes of images, for a product that will be written.

        Raises:
            InputTooLarge: together they exceed the limit of a product.
        """
        budget = [self._max_product_bytes - sum(len(each.data or b"") for each in found)]
        return list(await asyncio.gather(*(self._load(each, budget) for each in found)))

    async def _load(self, found: Found, budget: list[int]) -> NewImage:
        data, known = found.data, found.known
        if data is None:
            try:
                async with self._places:
                    self._spend(budget, 0)
                    data = await asyncio.to_thread(self._sound, known.sha256)
                    self._spend(budget, len(data))
            except NotFound:
                # The store has lost or damaged it, so it is read again.
                fresh = await self._read(found.reference, None)
                assert fresh.data is not None, "nothing was known, so it was read"
                data, known = fresh.data, fresh.known
        return NewImage(data, known.media_type, known.width, known.height)

    def _sound(self, sha256: str) -> bytes:
        data = self._blobs.get(sha256)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise NotFound(f"image file {sha256} has other contents")
        return data

    async def _find(self, reference: ImageReference, budget: list[int]) -> Found:
        known, settled = self._known.get(str(reference)), self._stored.get(str(reference))
        if settled is None and not isinstance(reference, Path) and not self._ask_again:
            settled = known
        found = Found(reference, settled, None) if settled else await self._read(reference, known)
        self._spend(budget, len(found.data or b""))
        return found

    def _spend(self, budget: list[int], count: int) -> None:
        budget[0] -= count
        if budget[0] < 0:
            raise InputTooLarge(
                f"the product's images have more than {self._max_product_bytes:,} bytes together"
            )

    async def _read(self, reference: ImageReference, known: KnownImage | None) -> Found:
        if isinstance(reference, Path):
            async with self._places:
                return await asyncio.to_thread(self._open, reference, known)
        if (found := self._read_ones.get(reference)) is not None:
            return found
        key = reference, known is None
        if (task := self._asked.get(key)) is None:
            task = self._asked[key] = asyncio.create_task(self._fetch(reference, known))
            task.add_done_callback(lambda _: self._asked.pop(key))
        found = await task
        if found.data is not None:
            self._read_ones[reference] = found
        return found

    def _open(self, path: Path, known: KnownImage | None) -> Found:
        try:
            state = path.stat()
            etag = f"{state.st_size}:{state.st_mtime_ns}"
            if known is not None and known.etag == etag:
                return Found(path, known, None)
            if state.st_size > self._limits.max_bytes:
                raise InputTooLarge(f"the file is larger than {self._limits.max_bytes:,} bytes")
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise InvalidInput(f"the file cannot be read: {reason}") from None
        return Found(path, self._inspected(data, etag, None), data)

    async def _fetch(self, url: str, known: KnownImage | None) -> Found:
        async def ask() -> Found:
            # During the pause between two attempts the place is free.
            async with self._places:
                answer = await self._fetcher.ask(url, _conditions(known))
            if answer.body is None:
                assert known is not None, "without a condition there is always a body"
                return Found(url, known, None)
            facts = await asyncio.to_thread(self._inspected, answer.body, answer.etag, answer.last_modified)
            return Found(url, facts, answer.body)

        return await retrying(ask, self._imports)

    def _inspected(self, data: bytes, etag: str | None, last_modified: str | None) -> KnownImage:
        facts = inspect_image(data, self._limits)
        sha256 = hashlib.sha256(data).hexdigest()
        return KnownImage(etag, last_modified, sha256, facts.media_type, facts.width, facts.height)


def _conditions(known: KnownImage | None) -> dict[str, str]:
    """Make a request conditional (RFC 9110, 13.1); the server ignores the date where it has an etag."""
    if known is None:
        return {}
    conditions = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in conditions.items() if value is not None}
