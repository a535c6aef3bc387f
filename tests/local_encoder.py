"""A loaded encoder in this process, behind the port that replicas have; can be told to be away."""

from collections.abc import Sequence

from core.errors import ModelUnavailable, VitrineError
from core.types import Encoded, EncoderInfo, EncoderInput, Vector
from models.config import EncoderConfig
from models.registry import load_encoder


class LocalEncoder:
    def __init__(self, name: str = "fake", checkpoint: str = "") -> None:
        self.name = name
        self.away = False
        self._encoder = load_encoder(EncoderConfig(name=name, family="fake", checkpoint=checkpoint))

    async def describe(self) -> EncoderInfo:
        if self.away:
            raise ModelUnavailable(f"{self.name} is not available")
        return self._encoder.info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        info = await self.describe()
        return Encoded(info, [self._one(item) for item in inputs])

    def _one(self, item: EncoderInput) -> Vector | VitrineError:
        try:
            if isinstance(item, str):
                return self._encoder.encode_texts([item])[0]
            return self._encoder.encode_images([self._encoder.decode(item)])[0]
        except VitrineError as error:
            return error
