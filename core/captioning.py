"""Write captions for the catalog's pictures that lack one from a model."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from core.errors import Internal, InvalidInput, NotFound, UnsupportedModality, VitrineError
from core.indexing import BUGS_EVERY_S
from core.portions import MAX_ENCODE_BYTES
from core.ports import Blobs, Captions, EncoderClient
from core.types import Captioned, EncoderInfo, Picture

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CaptionReport:
    """What one pass did: captions written, pictures put into quarantine, rows of gone pictures removed."""

    written: int = 0
    failed: int = 0
    removed: int = 0

    def __add__(self, other: "CaptionReport") -> "CaptionReport":
        return CaptionReport(
            self.written + other.written, self.failed + other.failed, self.removed + other.removed
        )


class Captioning:
    """Captions pictures with one encoder.

    A caption is stored as soon as its batch is written, so a pass that is killed goes on where it was;
    two passes at once only do some work twice.
    """

    def __init__(self, encoder: EncoderClient, captions: Captions, blobs: Blobs) -> None:
        self._encoder = encoder
        self._captions = captions
        self._blobs = blobs
        self._bugs_at = 0.0

    async def sweep(self, batch_size: int = 8) -> CaptionReport:
        """Caption what is missing until nothing is, and drop captions of pictures that are gone.

        Raises:
            UnsupportedModality: the encoder writes no captions.
            Unavailable: the encoder is away; what was done until then is done.
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
        while pictures := await _call(self._captions.missing, info.name, info.captions, batch_size):
            done = await self._caption(info, info.captions, pictures)
            report += done
            if done == CaptionReport():
                break
        return report

    async def _caption(self, info: EncoderInfo, version: str, pictures: Sequence[Picture]) -> CaptionReport:
        readable, failures = await self._read(pictures)
        written: list[tuple[str, str]] = []
        if readable:
            captioned = await self._encoder.caption([data for _, data in readable])
            if captioned.info.captions != version:
                # A rolling update is under way: what the other version writes is of use once it has won.
                return CaptionReport()
            written, broken = _split([picture for picture, _ in readable], captioned)
            failures += broken
        await _call(self._captions.put, info.name, version, written)
        await _call(self._captions.fail, info.name, version, failures)
        return CaptionReport(written=len(written), failed=len(failures))

    async def _read(
        self, pictures: Sequence[Picture]
    ) -> tuple[list[tuple[Picture, bytes]], list[tuple[str, VitrineError]]]:
        """Read files until a call can carry no more; those behind are still missing afterwards."""
        readable: list[tuple[Picture, bytes]] = []
        failures: list[tuple[str, VitrineError]] = []
        size = 0
        for picture in pictures:
            size += picture.bytes
            if readable and size > MAX_ENCODE_BYTES:
                break
            try:
                readable.append((picture, await _call(self._blobs.get, picture.sha256)))
            except NotFound as error:
                failures.append((picture.image_id, error))
        return readable, failures


def _split(
    pictures: Sequence[Picture], captioned: Captioned
) -> tuple[list[tuple[str, str]], list[tuple[str, VitrineError]]]:
    """Captions and failures by image id; a picture that fails for now only is in neither."""
    answers = [(picture.image_id, text) for picture, text in zip(pictures, captioned.texts, strict=True)]
    written = [(image_id, text) for image_id, text in answers if isinstance(text, str)]
    return written, [
        (image_id, text) for image_id, text in answers if isinstance(text, InvalidInput | Internal)
    ]


async def _call(function: Callable[..., T], *args: object) -> T:
    """Run a blocking call of a port in a thread."""
    return await asyncio.to_thread(function, *args)
