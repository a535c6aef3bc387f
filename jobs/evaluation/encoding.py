"""What a model version makes of all queries, encoded once on a machine that can load the model."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import ray

from core.bulk import BulkConfig
from core.errors import UnsupportedModality, VitrineError
from core.portions import parts
from core.ports import EncoderClient
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput, Vector
from jobs.cluster import own_errors
from jobs.settings import EncoderSettings
from models.config import EncoderConfig
from models.local import LocalEncoder
from models.registry import load_encoder

Encode = Callable[[EncoderSettings, Sequence[EncoderInput]], Encoded]
"""Loads a version and embeds inputs with it."""


class EncodedInputs:
    """A `core.ports.EncoderClient` that knows its answers already: searches need no model then."""

    def __init__(self, name: str, inputs: Sequence[EncoderInput], encoded: Encoded) -> None:
        self.name = name
        self.info = encoded.info
        self._answers: Mapping[EncoderInput, Vector | VitrineError] = dict(
            zip(inputs, encoded.vectors, strict=True)
        )

    async def describe(self) -> EncoderInfo:
        """Say which version this is."""
        return self.info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Look up what the model made of these inputs."""
        return Encoded(self.info, [self._answers[each] for each in inputs])

    async def caption(self, pictures: Sequence[bytes]) -> Captioned:
        """Refuse: nothing was captioned."""
        raise UnsupportedModality(f"{len(pictures)} pictures were embedded, not captioned")


def encode_on_cluster(bulk: BulkConfig) -> Encode:
    """Encode in a Ray task that takes what a copy of the model takes in any bulk job."""

    def encode(encoder: EncoderSettings, inputs: Sequence[EncoderInput]) -> Encoded:
        task = ray.remote(max_retries=1, **encoder.resources(bulk))(encode_here)
        with own_errors():
            encoded: Encoded = ray.get(task.remote(encoder.config, list(inputs)))
        return encoded

    return encode


def encode_here(config: EncoderConfig, inputs: Sequence[EncoderInput]) -> Encoded:
    """Load the model in this process and embed the inputs, batch by batch; each succeeds or fails alone."""
    client = LocalEncoder(load_encoder(config), config.decode_threads)
    return asyncio.run(_in_batches(client, inputs, config.max_batch_size))


async def _in_batches(client: EncoderClient, inputs: Sequence[EncoderInput], size: int) -> Encoded:
    vectors: list[Vector | VitrineError] = []
    for some in parts(inputs, size):
        vectors += (await client.encode(some)).vectors
    return Encoded(await client.describe(), vectors)
