"""One replica of an encoder: decodes images in threads and runs the model on batches across requests."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from core.concurrency import TtlCache, run_in
from core.errors import ModelUnavailable, VitrineError, expected
from core.telemetry import Stage
from core.types import PROBE, Captioned, Encoded, EncoderInfo, EncoderInput, ImageInput, TokenCount, Vector
from deployments.observability.telemetry import called, start_telemetry
from deployments.replicas.batching import Batches
from deployments.replicas.dependencies import wait_for
from deployments.replicas.embedding_cache import CachedEmbeddings
from models.config import EncoderConfig
from models.encoder import Pixels, load_encoder

DEAD_BATCHES = 3
"""Failed batches in a row, of images, texts or captions, after which a replica asks to be replaced."""
PROBE_TTL_S = 5.0
"""Time to live of a probe's answer. Readiness needs no key, so it must not take much of the model's time."""


class EncoderReplica:
    """Serves one model.

    Images are decoded as they arrive, each in a thread. So decoding overlaps with the forward pass of the batch
    before, and a broken image never joins a batch. One thread owns the model.
    """

    def __init__(self, config: EncoderConfig) -> None:
        start_telemetry()
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        # torch keeps the CUDA graphs of a compiled model by thread, so the thread that runs it loads it.
        load = partial(wait_for, partial(load_encoder, config))
        self._encoder = self._model_thread.submit(load).result()
        self._embed = self._encode_one
        if config.cache_max_bytes:
            self._embed = CachedEmbeddings(self._encoder.info, config.cache_max_bytes, self._encode_one).embed
        self._decoders = ThreadPoolExecutor(config.decode_threads, thread_name_prefix="decode")
        self._probes = TtlCache[None, Vector](lambda _: self._probe(), PROBE_TTL_S)
        batches = partial(
            Batches, thread=self._model_thread, wait_s=config.batch_wait_timeout_s, model=config.name
        )
        size, captions = config.max_batch_size, config.captions.max_batch_size if config.captions else 1
        model = self._encoder
        self._images: Batches[Pixels, Vector | VitrineError] = batches(model.encode_images, "image", size)
        self._texts: Batches[str, Vector | VitrineError] = batches(model.encode_texts, "text", size)
        self._captions: Batches[Pixels, str | VitrineError] = batches(model.caption, "caption", captions)

    async def describe(self) -> EncoderInfo:
        """Return the version that this replica runs."""
        return self._encoder.info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed images and texts; each input succeeds or fails alone, in input order."""
        started = time.perf_counter()
        with called("encode", self._encoder.info.name, len(inputs)):
            answers = asyncio.gather(*(self._embed_or_probe(item) for item in inputs))
            vectors, tokens = await asyncio.gather(answers, self._count_tokens(inputs))
        timings_ms = {"replica": (time.perf_counter() - started) * 1e3}
        return Encoded(self._encoder.info, vectors, timings_ms, tokens)

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        """Write captions for image files; each succeeds or fails alone, in input order.

        Raises:
            UnsupportedModality: this model writes no captions.
        """
        self._encoder.caption([])
        started = time.perf_counter()
        with called("caption", self._encoder.info.name, len(images)):
            texts = await asyncio.gather(*(self._caption_one(data) for data in images))
        return Captioned(self._encoder.info, list(texts), {"replica": (time.perf_counter() - started) * 1e3})

    async def check_health(self) -> None:
        """Fail when the model has stopped answering, as after a GPU error; Serve then replaces the replica."""
        failed = max(each.failed_in_a_row for each in (self._images, self._texts, self._captions))
        if failed >= DEAD_BATCHES:
            raise ModelUnavailable(f"the model failed on {failed} batches in a row")

    async def _count_tokens(self, inputs: Sequence[EncoderInput]) -> TokenCount:
        texts = [item for item in inputs if isinstance(item, str)]
        return await run_in(self._decoders, self._encoder.count_tokens, texts) if texts else TokenCount()

    async def _embed_or_probe(self, item: EncoderInput) -> Vector | VitrineError:
        if item != PROBE:
            return await self._embed(item)
        try:
            return await self._probes.get(None)
        except VitrineError as error:
            return error

    async def _probe(self) -> Vector:
        """Run the probe through the model itself, past the cache of embeddings."""
        answer = await self._encode_one(PROBE)
        if isinstance(answer, VitrineError):
            raise answer
        return answer

    async def _encode_one(self, item: EncoderInput) -> Vector | VitrineError:
        try:
            if isinstance(item, str):
                if "text" not in self._encoder.info.modalities:
                    # Refused here, so that it takes no place in a batch and counts as no error of the model.
                    self._encoder.encode_texts([item])
                return await self._texts.submit(item)
            return await self._images.submit(await self._decode(item))
        except Exception as error:
            return expected(error, f"encoding with {self._encoder.info.name}")

    async def _caption_one(self, data: bytes) -> str | VitrineError:
        try:
            return await self._captions.submit(await self._decode(data))
        except Exception as error:
            return expected(error, f"captioning with {self._encoder.info.name}")

    async def _decode(self, image: ImageInput) -> Pixels:
        with Stage("preprocess", self._encoder.info.name):
            return await run_in(self._decoders, self._encoder.decode, image)
