"""Encoder in this process, behind the port that replicas have; can be set to be away.

It counts the inputs that it has encoded, and the image files that it was sent to match.
"""

from collections.abc import Sequence
from dataclasses import replace

from core.errors import InvalidInput, ModelUnavailable, VitrineError
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput, Matched, NamedFile, Vector
from models.config import CaptionConfig, EncoderConfig
from models.encoder import load_encoder
from models.matching import Features


class LocalEncoder:
    def __init__(
        self, name: str = "fake", checkpoint: str = "", captions: CaptionConfig | None = None
    ) -> None:
        self.name = name
        self.away = False
        self.encoded = 0
        self.has_head = True
        self.files: list[str] = []
        self.features: dict[str, Features] = {}
        config = EncoderConfig(name=name, family="fake", checkpoint=checkpoint, captions=captions)
        self._encoder = load_encoder(config)

    async def describe(self) -> EncoderInfo:
        if self.away:
            raise ModelUnavailable(f"{self.name} is not available")
        return self._encoder.info if self.has_head else replace(self._encoder.info, matching=None)

    async def match(self, text: str, images: Sequence[NamedFile]) -> Matched:
        info = await self.describe()
        self.files += [sha256 for sha256, data in images if data is not None]
        return Matched(info, [self._match_one(text, *each) for each in images])

    def _match_one(self, text: str, sha256: str, data: bytes | None) -> float | VitrineError | None:
        try:
            if data is not None:
                (found,) = self._encoder.features([self._encoder.decode(data)])
                if isinstance(found, VitrineError):
                    return found
                self.features[sha256] = found
        except InvalidInput as error:
            return error
        held = self.features.get(sha256)
        return None if held is None else self._encoder.match(text, [held])[0]

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
