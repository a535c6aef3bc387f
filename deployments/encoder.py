"""One replica of an encoder: decode in threads, run the model on batches that gather across requests."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve

from core.errors import ModelUnavailable, VitrineError
from core.types import Encoded, EncoderInfo, EncoderInput, Vector
from models.config import EncoderConfig
from models.registry import load_encoder

DEAD_BATCHES = 3
"""Batches in a row without one answer after which a replica asks to be replaced."""


class EncoderReplica:
    """Serves one model.

    Pictures are decoded as they arrive, each in a thread, so that decoding overlaps with the forward
    pass of the batch before and a broken picture never joins a batch. One thread owns the model.
    """

    def __init__(self, config: EncoderConfig) -> None:
        self._encoder = load_encoder(config)
        self._decoders = ThreadPoolExecutor(config.decode_threads, thread_name_prefix="decode")
        self._dead_batches = 0
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        for batched in (self._embed_image, self._embed_text):
            batched.set_max_batch_size(config.max_batch_size)
            batched.set_batch_wait_timeout_s(config.batch_wait_timeout_s)

    async def describe(self) -> EncoderInfo:
        """Say which version this replica runs."""
        return self._encoder.info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed pictures and words; each input succeeds or fails alone, in input order."""
        started = time.perf_counter()
        vectors = await asyncio.gather(*(self._encode_one(item) for item in inputs))
        return Encoded(self._encoder.info, list(vectors), {"replica": (time.perf_counter() - started) * 1e3})

    async def check_health(self) -> None:
        """Fail when the model has stopped to answer, as after a GPU error; Serve then replaces the replica."""
        if self._dead_batches >= DEAD_BATCHES:
            raise ModelUnavailable(f"the model failed on {self._dead_batches} batches in a row")

    async def _encode_one(self, item: EncoderInput) -> Vector | VitrineError:
        try:
            if isinstance(item, str):
                answer = await self._embed_text(item)
            else:
                loop = asyncio.get_running_loop()
                pixels = await loop.run_in_executor(self._decoders, self._encoder.decode, item)
                answer = await self._embed_image(pixels)
        except VitrineError as error:
            return error
        result: Vector | VitrineError = answer
        return result

    @serve.batch  # type: ignore[untyped-decorator]
    async def _embed_image(self, batch: list[Any]) -> list[Vector | VitrineError]:
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._model_thread, self._encoder.encode_images, batch)
        dead = all(isinstance(answer, ModelUnavailable) for answer in answers)
        self._dead_batches = self._dead_batches + 1 if dead else 0
        return answers

    @serve.batch  # type: ignore[untyped-decorator]
    async def _embed_text(self, batch: list[str]) -> list[Vector | VitrineError]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._model_thread, self._encoder.encode_texts, batch)
