"""The encoders that the gateway offers, by name."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from core.ensemble import ENSEMBLE
from core.errors import ModelUnavailable, NotFound, Unavailable, UnsupportedModality
from core.ports import EncoderClient
from core.types import EncoderInput, Modality


class EncoderSet:
    """The configured encoders; replaced as a whole when the configuration changes."""

    def __init__(self, names: Iterable[str], connect: Callable[[str], EncoderClient]) -> None:
        self._encoders = {name: connect(name) for name in names}

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
        needed: set[Modality] = {"text" if isinstance(item, str) else "image" for item in inputs}
        for modality in sorted(needed - set(info.modalities)):
            raise _unsupported(
                name, "words" if modality == "text" else "pictures", await self._capable(modality)
            )

    async def _capable(self, modality: Modality) -> list[str]:
        capable = []
        for encoder in self:
            try:
                if modality in (await encoder.describe()).modalities:
                    capable.append(encoder.name)
            except Unavailable:
                continue
        return capable

    def searchable(self, name: str) -> bool:
        """Tell whether `name` is an encoder rather than the ensemble.

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


def _unsupported(model: str, modality: str, capable: Sequence[str]) -> UnsupportedModality:
    others = ", ".join(sorted(capable)) if capable else "none of the configured models"
    return UnsupportedModality(f"model {model!r} cannot encode {modality}; these can: {others}")
