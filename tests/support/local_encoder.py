"""Encoder in this process, behind the port that replicas have; can be set to be away.

It counts the inputs that it has encoded.
"""

from collections.abc import Sequence

from core.errors import InvalidInput, ModelUnavailable, VitrineError
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput, Vector
from models.config import CaptionConfig, EncoderConfig
from models.encoder import load_encoder


class LocalEncoder:
    def __init__(
        self, name: str = "fake", checkpoint: str = "", captions: CaptionConfig | None = None
    ) -> None:
        self.name = name
        self.away = False
        self.encoded = 0
        config = EncoderConfig(name=name, family="fake", checkpoint=checkpoint, captions=captions)
        self._encoder = load_encoder(config)

    async def describe(self) -> EncoderInfo:
        if self.away:
            raise ModelUnavailable(f"{self.name} is not available")
        return self._encoder.info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        info = await self.describe()
        self.encoded += len(inputs)
        tokens = self._encoder.count_tokens(inputs)
        return Encoded(info, [self._one(item) for item in inputs], tokens=tokens)

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        info = await self.describe()
        self._encoder.caption([])
        return Captioned(info, [self._caption_one(data) for data in images])

    def _caption_one(self, data: bytes) -> str | VitrineError:
        try:
            return self._encoder.caption([self._encoder.decode(data)])[0]
        except InvalidInput as error:
            return error

    def _one(self, item: EncoderInput) -> Vector | VitrineError:
        try:
            if isinstance(item, str):
                return self._encoder.encode_texts([item])[0]
            return self._encoder.encode_images([self._encoder.decode(item)])[0]
        except VitrineError as error:
            return error
