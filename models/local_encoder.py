"""Client of an encoder in this process."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from core.errors import VitrineError
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput, Vector
from models.encoder import Encoder, Pixels

T = TypeVar("T")
_DecodedInput = Pixels | str | VitrineError


class LocalEncoder:
    """Implements `core.ports.EncoderClient` over an `Encoder`: threads decode, one other thread owns the model.

    Several calls may run at once: while one is in the model, the images of the next are decoded.
    """

    def __init__(
        self,
        encoder: Encoder,
        decode_threads: int,
        index_schema: str = "",
        model_thread: ThreadPoolExecutor | None = None,
    ) -> None:
        """`index_schema` is that of the collections, which encoders do not know.

        `model_thread` has loaded the model; without it, another thread may have, unless the model is compiled.
        """
        self.name = encoder.info.name
        self._encoder = encoder
        self._info = replace(encoder.info, index_schema=index_schema)
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._model_thread = model_thread or ThreadPoolExecutor(1, thread_name_prefix="model")

    async def describe(self) -> EncoderInfo:
        """Return the version that is loaded."""
        return self._info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed images and texts, in input order; each succeeds or fails alone."""
        vectors = await self._answer(inputs, self._encoder.encode_images)
        return Encoded(self._info, vectors, tokens=self._encoder.count_tokens(inputs))

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        """Caption image files; each succeeds or fails alone.

        Raises:
            UnsupportedModality: the encoder writes no captions.
        """
        return Captioned(self._info, await self._answer(images, self._encoder.caption))

    async def _answer(
        self, inputs: Sequence[EncoderInput], see: Callable[[Sequence[Pixels]], list[T]]
    ) -> list[T | Any]:
        loop = asyncio.get_running_loop()
        work = (loop.run_in_executor(self._decoders, self._decode, item) for item in inputs)
        decoded = await asyncio.gather(*work)
        return await loop.run_in_executor(self._model_thread, self._answer_decoded, decoded, see)

    def _decode(self, item: EncoderInput) -> _DecodedInput:
        if isinstance(item, str):
            return item
        try:
            return self._encoder.decode(item)
        except VitrineError as error:
            return error

    def _answer_decoded(
        self, decoded: Sequence[_DecodedInput], see: Callable[[Sequence[Pixels]], list[T]]
    ) -> list[T | Any]:
        images = iter(see([item for item in decoded if not isinstance(item, str | VitrineError)]))
        texts = iter(self._embed_texts([item for item in decoded if isinstance(item, str)]))
        return [
            item if isinstance(item, VitrineError) else next(texts if isinstance(item, str) else images)
            for item in decoded
        ]

    def _embed_texts(self, texts: Sequence[str]) -> list[Vector | VitrineError]:
        try:
            return self._encoder.encode_texts(texts)
        except VitrineError as error:
            return [error for _ in texts]
