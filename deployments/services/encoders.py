"""The configured encoders by name, and embeddings and captions from them for their own sake."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from catalog.captions import SqlCaptions
from core.concurrency import TtlCache, batched_by_bytes, input_bytes
from core.errors import (
    InvalidInput,
    ModelUnavailable,
    NotFound,
    Unavailable,
    UnsupportedModality,
    VitrineError,
)
from core.ports import EncoderClient
from core.rerank import Matcher
from core.search import ENSEMBLE
from core.types import CaptionCounts, Captioned, Encoded, EncoderInfo, EncoderInput, Modality, TokenCount
from deployments.observability.telemetry import note_model

VERSIONS_TTL_S = 10.0
"""Time to live of the catalog's list of model versions."""
_KINDS: Mapping[Modality, str] = {"text": "texts", "image": "images"}


class EncoderSet:
    """The configured encoders. A change of the configuration replaces the whole set.

    `versions` lists the versions of the catalog. Their modalities are read there, which starts no encoder that is
    scaled to zero.
    """

    def __init__(
        self,
        names: Iterable[str],
        connect: Callable[[str], EncoderClient],
        versions: Callable[[], Sequence[EncoderInfo]] = list,
    ) -> None:
        self._encoders = {name: connect(name) for name in names}
        self._versions = versions
        self._known = TtlCache[None, dict[str, set[Modality]]](self._read_known, VERSIONS_TTL_S)

    def __iter__(self) -> Iterator[EncoderClient]:
        return iter(self._encoders.values())

    def get(self, name: str) -> EncoderClient:
        """Return the encoder; NotFound names those that exist."""
        if name not in self._encoders:
            known = ", ".join(sorted(self._encoders)) or "none"
            raise NotFound(f"there is no model {name!r}; models: {known}").at("model")
        return self._encoders[name]

    async def require(self, name: str, inputs: Iterable[EncoderInput]) -> None:
        """Check that the model can encode these inputs.

        Raises:
            UnsupportedModality: it cannot; the message names the models that can.
        """
        info = await self.get(name).describe()
        for modality in sorted(modalities(inputs) - set(info.modalities)):
            raise _unsupported(name, modality, await self._capable(modality))

    async def unable(self, needed: Iterable[Modality]) -> dict[str, str]:
        """Return the models that cannot encode all that is needed, with the reason, without asking any of them.

        Models without a registered version are left out, and so are those with a version that can.
        """
        wanted, known = set(needed), await self._known.get(None)
        return {
            name: f"{name} does not take {' and '.join(_KINDS[each] for each in sorted(lacking))}"
            for name, able in known.items()
            if name in self._encoders and (lacking := wanted - able)
        }

    async def _read_known(self, _: None) -> dict[str, set[Modality]]:
        """Read which modalities each model can encode, by any of its versions."""
        try:
            versions = await asyncio.to_thread(self._versions)
        except Unavailable:
            # Callers then ask the models.
            return {}
        known: dict[str, set[Modality]] = {}
        for info in versions:
            known.setdefault(info.name, set()).update(info.modalities)
        return known

    async def _capable(self, modality: Modality) -> list[str]:
        known = await self._known.get(None)
        capable = []
        for encoder in self:
            try:
                able = known.get(encoder.name) or (await encoder.describe()).modalities
            except Unavailable:
                continue
            if modality in able:
                capable.append(encoder.name)
        return capable

    async def matcher(self, name: str) -> Matcher:
        """Return the encoder if it has a matching head.

        Raises:
            InvalidInput: there is no such encoder, or it has none; the message names those that have.
            ModelUnavailable, DeadlineExceeded: not now.
        """
        encoder = self._encoders.get(name)
        if isinstance(encoder, Matcher) and (await encoder.describe()).matching is not None:
            return encoder
        able = []
        for each in self:
            with suppress(Unavailable):
                if isinstance(each, Matcher) and (await each.describe()).matching is not None:
                    able.append(each.name)
        what = f"there is no model {name!r}" if encoder is None else f"model {name!r} has no matching head"
        ways = f"with a matching head: {', '.join(sorted(able)) or 'none of the models that answer'}"
        raise InvalidInput(f"{what}; {ways}").at("rerank.model")

    def searchable(self, name: str) -> bool:
        """Return whether `name` is an encoder rather than the ensemble.

        Raises:
            NotFound: it is neither.
            ModelUnavailable: there are no encoders at all.
        """
        if not self._encoders:
            raise ModelUnavailable("no encoder is configured")
        if name != ENSEMBLE and name not in self._encoders:
            known = ", ".join(sorted([*self._encoders, ENSEMBLE]))
            raise NotFound(f"there is no model {name!r}; models: {known}").at("model")
        return name != ENSEMBLE


def modalities(inputs: Iterable[EncoderInput]) -> set[Modality]:
    """Return the modalities that a model needs to encode these inputs."""
    return {"text" if isinstance(item, str) else "image" for item in inputs}


def _unsupported(model: str, modality: Modality, capable: Sequence[str]) -> UnsupportedModality:
    others = ", ".join(sorted(capable)) if capable else "none of the configured models"
    return UnsupportedModality(f"model {model!r} cannot encode {_KINDS[modality]}; these can: {others}")


_ATTEMPTS = 4
"""Calls until a replica with the version of the first batch answers."""


class Embedder:
    """Embeds batches with one of the encoders; `default` is for calls that name none."""

    def __init__(self, encoders: EncoderSet, default: str | None) -> None:
        self._encoders = encoders
        self._default = default

    async def encoder(self, name: str | None) -> EncoderClient:
        """Return the encoder of that name; for None the default, else the first that takes texts and images.

        Raises:
            NotFound: there is none.
            ModelUnavailable: the encoders that could be it do not answer.
        """
        if name is not None or self._default is not None:
            return self._encoders.get(name or self._default or "")
        away: list[str] = []
        for encoder in self._encoders:
            try:
                if {"text", "image"} <= set((await encoder.describe()).modalities):
                    return encoder
            except Unavailable:
                away.append(encoder.name)
        if away:
            raise ModelUnavailable(f"not available: {', '.join(away)}")
        raise NotFound("no model takes both texts and images; name one").at("model")

    async def embed(self, encoder: EncoderClient, inputs: Sequence[EncoderInput | VitrineError]) -> Encoded:
        """Embed inputs; each succeeds or fails alone, in order. An input that is an error stays one.

        Raises:
            UnsupportedModality: the model cannot encode some of the inputs.
            ModelUnavailable, DeadlineExceeded: not now.
        """
        note_model(encoder.name)
        sound = {index: item for index, item in enumerate(inputs) if not isinstance(item, VitrineError)}
        await self._encoders.require(encoder.name, sound.values())
        if not sound:
            return Encoded(
                await encoder.describe(), [item for item in inputs if isinstance(item, VitrineError)]
            )
        return _with_failures(inputs, await _encode(encoder, list(sound.values())))


async def _encode(encoder: EncoderClient, inputs: Sequence[EncoderInput]) -> Encoded:
    first, *others = batched_by_bytes(inputs, input_bytes)
    answer = await encoder.encode(first)
    rest = await asyncio.gather(*(_encode_as(answer, encoder, batch) for batch in others))
    if not rest:
        return answer
    answers = (answer, *rest)
    vectors = [vector for each in answers for vector in each.vectors]
    tokens = TokenCount(
        sum(each.tokens.tokens for each in answers), sum(each.tokens.cut_texts for each in answers)
    )
    return Encoded(answer.info, vectors, _longest([each.timings_ms for each in answers]), tokens)


async def _encode_as(answer: Encoded, encoder: EncoderClient, batch: Sequence[EncoderInput]) -> Encoded:
    """Encode with the version of `answer`: during a roll-out replicas run different weights."""
    for _ in range(_ATTEMPTS):
        encoded = await encoder.encode(batch)
        if encoded.info.fingerprint == answer.info.fingerprint:
            return encoded
    raise ModelUnavailable(
        f"model {encoder.name!r} is being replaced; try again shortly, or send fewer inputs"
    )


def _with_failures(inputs: Sequence[EncoderInput | VitrineError], encoded: Encoded) -> Encoded:
    vectors = iter(encoded.vectors)
    merged = [item if isinstance(item, VitrineError) else next(vectors) for item in inputs]
    return replace(encoded, vectors=merged)


def _longest(timings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the longest time of each stage, since batches run side by side."""
    stages = {stage for each in timings for stage in each}
    return {stage: max(each.get(stage, 0.0) for each in timings) for stage in sorted(stages)}


class Captioner:
    """Writes captions with an encoder that can; counts the catalog's captions."""

    def __init__(self, encoders: EncoderSet, captions: SqlCaptions) -> None:
        self._encoders = encoders
        self._captions = captions

    async def caption(self, image: bytes, model: str | None) -> Captioned:
        """Write a caption for one image file.

        Without `model`, the first configured encoder that writes captions does it.

        Raises:
            NotFound: there is no such model.
            UnsupportedModality: it writes no captions; the message names those that do.
            ModelUnavailable, DeadlineExceeded: not now.
        """
        encoder = await self._encoder(model)
        note_model(encoder.name)
        return await encoder.caption([image])

    async def counts(self, info: EncoderInfo | None) -> CaptionCounts | None:
        """Count the images that a version has captioned; None for a version without captions."""
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
        """Return the encoders that write captions, and the names of those that do not answer."""
        capable, away = [], []
        for encoder in self._encoders:
            try:
                if (await encoder.describe()).captions is not None:
                    capable.append(encoder)
            except Unavailable:
                away.append(encoder.name)
        return capable, away
