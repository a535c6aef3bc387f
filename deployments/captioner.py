"""Captions for their own sake: which model writes them, and what it says of a picture."""

import asyncio

from core.errors import ModelUnavailable, Unavailable, UnsupportedModality
from core.ports import Captions, EncoderClient
from core.types import CaptionCounts, Captioned, EncoderInfo
from deployments.encoders import EncoderSet
from deployments.request_record import note_model


class Captioner:
    """Finds the encoder that can, and asks it; knows how far the catalog's captions have come."""

    def __init__(self, encoders: EncoderSet, captions: Captions) -> None:
        self._encoders = encoders
        self._captions = captions

    async def caption(self, picture: bytes, model: str | None) -> Captioned:
        """Describe one picture file.

        Without a model, the first in the order of the configuration that writes captions.

        Raises:
            NotFound: there is no such model.
            UnsupportedModality: it writes no captions; the message names those that do.
            ModelUnavailable, DeadlineExceeded: not now.
        """
        encoder = await self._encoder(model)
        note_model(encoder.name)
        return await encoder.caption([picture])

    async def counts(self, info: EncoderInfo | None) -> CaptionCounts | None:
        """Count what a version has captioned of the catalog; None where it writes no captions."""
        if info is None or info.captions is None:
            return None
        return await asyncio.to_thread(self._captions.counts, info.name, info.captions)

    async def _encoder(self, model: str | None) -> EncoderClient:
        if model is not None:
            encoder = self._encoders.get(model)
            if (await encoder.describe()).captions is not None:
                return encoder
        capable, away = await self._survey()
        if model is None and capable:
            return capable[0]
        if model is None and away:
            raise ModelUnavailable(f"no model that answers writes captions; away: {', '.join(away)}")
        names = ", ".join(encoder.name for encoder in capable)
        ways = f"these do: {names}" if names else "set `captions` of a BLIP-2 encoder to have them"
        subject = f"model {model!r} writes no" if model is not None else "no configured model writes"
        raise UnsupportedModality(f"{subject} captions; {ways}").at("model")

    async def _survey(self) -> tuple[list[EncoderClient], list[str]]:
        """The encoders that write captions, and the names of those that do not answer."""
        capable, away = [], []
        for encoder in self._encoders:
            try:
                if (await encoder.describe()).captions is not None:
                    capable.append(encoder)
            except Unavailable:
                away.append(encoder.name)
        return capable, away
