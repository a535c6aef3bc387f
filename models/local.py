"""A loaded model in this process, behind the port that replicas have."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from core.errors import VitrineError
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput, Vector
from models.encoder import Encoder, Pixels

T = TypeVar("T")
Decoded = Pixels | str | VitrineError


class LocalEncoder:
    """`core.ports.EncoderClient` over an `Encoder`: threads decode, one other thread owns the model.

    Several calls may run at once: while one is in the model, the pictures of the next are decoded.
    """

    def __init__(self, encoder: Encoder, decode_threads: int) -> None:
        self.name = encoder.info.name
        self._encoder = encoder
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def describe(self) -> EncoderInfo:
        """Say which version this is."""
        return self._encoder.info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed pictures and words; each input succeeds or fails alone, in input order."""
        decoded = await self._decode_all(inputs)
        vectors = await self._in_model_thread(self._embed, decoded)
        return Encoded(self._encoder.info, vectors)

    async def caption(self, pictures: Sequence[bytes]) -> Captioned:
        """Describe picture files in words; each succeeds or fails alone.

        Raises:
            UnsupportedModality: the encoder writes no captions.
        """
        decoded = await self._decode_all(pictures)
        texts = await self._in_model_thread(self._describe_pictures, decoded)
        return Captioned(self._encoder.info, texts)

    async def _decode_all(self, inputs: Sequence[EncoderInput]) -> list[Decoded]:
        loop = asyncio.get_running_loop()
        work = (loop.run_in_executor(self._decoders, self._decode, item) for item in inputs)
        return list(await asyncio.gather(*work))

    async def _in_model_thread(self, work: Callable[[Sequence[Decoded]], T], decoded: Sequence[Decoded]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._model_thread, work, decoded)

    def _decode(self, item: EncoderInput) -> Decoded:
        if isinstance(item, str):
            return item
        try:
            return self._encoder.decode(item)
        except VitrineError as error:
            return error

    def _embed(self, decoded: Sequence[Decoded]) -> list[Vector | VitrineError]:
        pictures = [item for item in decoded if not isinstance(item, str | VitrineError)]
        texts = [item for item in decoded if isinstance(item, str)]
        images = iter(self._encoder.encode_images(pictures))
        words = iter(self._embed_texts(texts))
        return [
            item if isinstance(item, VitrineError) else next(words if isinstance(item, str) else images)
            for item in decoded
        ]

    def _describe_pictures(self, decoded: Sequence[Decoded]) -> list[str | VitrineError]:
        pictures = [item for item in decoded if not isinstance(item, str | VitrineError)]
        captions = iter(self._encoder.caption(pictures))
        return [item if isinstance(item, str | VitrineError) else next(captions) for item in decoded]

    def _embed_texts(self, texts: Sequence[str]) -> list[Vector | VitrineError]:
        try:
            return self._encoder.encode_texts(texts)
        except VitrineError as error:
            return [error for _ in texts]
