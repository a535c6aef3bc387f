"""The encoders that the gateway offers, by name."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from core.ensemble import ENSEMBLE
from core.errors import ModelUnavailable, NotFound, Unavailable, UnsupportedModality
from core.ports import EncoderClient
from core.shared_work import start_shared
from core.types import EncoderInfo, EncoderInput, Modality

VERSIONS_TTL_S = 10.0
"""How long the catalog's list of model versions is believed."""
_KINDS: Mapping[Modality, str] = {"text": "words", "image": "pictures"}


class EncoderSet:
    """The configured encoders; replaced as a whole when the configuration changes.

    `versions` lists the versions of the catalog: what models can do is read there, which wakes none of them.
    """

    def __init__(
        self,
        names: Iterable[str],
        connect: Callable[[str], EncoderClient],
        versions: Callable[[], Sequence[EncoderInfo]] = list,
    ) -> None:
        self._encoders = {name: connect(name) for name in names}
        self._versions = versions
        self._reading: asyncio.Task[Sequence[EncoderInfo]] | None = None
        self._read_at = 0.0

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
        for modality in sorted(modalities(inputs) - set(info.modalities)):
            raise _unsupported(name, modality, await self._capable(modality))

    async def unable(self, needed: Iterable[Modality]) -> dict[str, str]:
        """Name the models that cannot encode all that is needed, and say why, without asking any of them.

        A model of which the catalog knows no version yet is not among them, nor one with a version that can.
        """
        wanted, known = set(needed), await self._known()
        return {
            name: f"{name} does not take {' and '.join(_KINDS[each] for each in sorted(lacking))}"
            for name, able in known.items()
            if name in self._encoders and (lacking := wanted - able)
        }

    async def _known(self) -> dict[str, set[Modality]]:
        """What models can encode, by any of their versions."""
        if self._reading is None or (
            self._reading.done() and time.monotonic() > self._read_at + VERSIONS_TTL_S
        ):
            self._read_at = time.monotonic()
            self._reading = start_shared(asyncio.to_thread(self._versions))
        try:
            versions = await asyncio.shield(self._reading)
        except Unavailable:
            # Then models are asked, and say themselves what they cannot do.
            return {}
        known: dict[str, set[Modality]] = {}
        for info in versions:
            known.setdefault(info.name, set()).update(info.modalities)
        return known

    async def _capable(self, modality: Modality) -> list[str]:
        known = await self._known()
        capable = []
        for encoder in self:
            try:
                able = known.get(encoder.name) or (await encoder.describe()).modalities
            except Unavailable:
                continue
            if modality in able:
                capable.append(encoder.name)
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


def modalities(inputs: Iterable[EncoderInput]) -> set[Modality]:
    """Say what a model must be able to read to encode these inputs."""
    return {"text" if isinstance(item, str) else "image" for item in inputs}


def _unsupported(model: str, modality: Modality, capable: Sequence[str]) -> UnsupportedModality:
    others = ", ".join(sorted(capable)) if capable else "none of the configured models"
    return UnsupportedModality(f"model {model!r} cannot encode {_KINDS[modality]}; these can: {others}")
