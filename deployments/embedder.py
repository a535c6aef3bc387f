"""Embedding for its own sake: batches of any size, all vectors of one answer from one model version."""

import asyncio
from collections.abc import Mapping, Sequence

from core.errors import ModelUnavailable, NotFound, Unavailable, VitrineError
from core.portions import batched_by_bytes, input_bytes
from core.ports import EncoderClient
from core.types import Encoded, EncoderInput
from deployments.encoders import EncoderSet
from deployments.request_record import note_model

_ATTEMPTS = 4
"""Calls until the replica that answers runs the version that the batch began with."""


class Embedder:
    """Embeds batches with one of the encoders; `default` names that of calls that name none."""

    def __init__(self, encoders: EncoderSet, default: str | None) -> None:
        self._encoders = encoders
        self._default = default

    async def encoder(self, name: str | None) -> EncoderClient:
        """Return the encoder of that name; for None the default, else the first that takes words and pictures.

        Raises:
            NotFound: there is none.
            ModelUnavailable: which one it would be cannot be told now.
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
        raise NotFound("no model takes both words and pictures; name one").at("model")

    async def embed(self, encoder: EncoderClient, inputs: Sequence[EncoderInput | VitrineError]) -> Encoded:
        """Embed inputs; each succeeds or fails alone, in order. One that failed before keeps its error.

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
    vectors = [vector for encoded in (answer, *rest) for vector in encoded.vectors]
    timings = answer.timings_ms if not rest else _longest([each.timings_ms for each in (answer, *rest)])
    return Encoded(answer.info, vectors, timings)


async def _encode_as(answer: Encoded, encoder: EncoderClient, batch: Sequence[EncoderInput]) -> Encoded:
    """Encode with the version that gave `answer`: during a roll-out replicas run different weights."""
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
    return Encoded(encoded.info, merged, encoded.timings_ms)


def _longest(timings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Batches run side by side, so the longest of each stage tells."""
    stages = {stage for each in timings for stage in each}
    return {stage: max(each.get(stage, 0.0) for each in timings) for stage in sorted(stages)}
