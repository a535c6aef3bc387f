"""Encoders that Serve scales to zero: what asks only what they are must not wake them."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import ray
from ray import serve

from core.ports import EncoderClient
from core.shared_work import start_shared
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput

logger = logging.getLogger(__name__)

BELIEVED_S = 2.0
PATIENCE_S = 5.0
"""How long Serve's controller may take to say who sleeps; who is unknown counts as awake."""
_SERVING = ("RUNNING", "PENDING_MIGRATION")
"""States of replicas that answer."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Whether an encoder has no replica that answers because nobody needed one, and when it was deployed.

    `deployed_at` is a Unix time, in seconds; None while a deployment is under way, or has failed.
    """

    asleep: bool = False
    deployed_at: float | None = None

    @property
    def is_sound(self) -> bool:
        """Whether it sleeps and would wake: nothing is wrong with it."""
        return self.asleep and self.deployed_at is not None


class Rests:
    """What Serve says of the encoders, asked at most every `BELIEVED_S` seconds."""

    def __init__(self) -> None:
        self._known: Mapping[str, Rest] = {}
        self._until = 0.0
        self._asking: asyncio.Task[Mapping[str, Rest]] | None = None

    async def of(self, name: str) -> Rest:
        """Say whether an encoder sleeps; one that Serve says nothing of is awake."""
        if time.monotonic() > self._until:
            if self._asking is None:
                self._asking = start_shared(asyncio.to_thread(_read_rests))
            # Not cancelled: without a controller each attempt would leave one more thread waiting for it.
            await asyncio.wait([self._asking], timeout=PATIENCE_S)
            self._take()
        return self._known.get(name, Rest())

    def _take(self) -> None:
        if self._asking is None:
            return
        if not self._asking.done():
            self._known = {}
            return
        self._known, self._until, self._asking = self._asking.result(), time.monotonic() + BELIEVED_S, None


class SleepingEncoder:
    """`core.ports.EncoderClient` that describes an encoder from memory while it sleeps.

    Only work wakes it. A version that was deployed meanwhile is asked for, which wakes it once.
    """

    def __init__(self, encoder: EncoderClient, rest: Callable[[str], Awaitable[Rest]]) -> None:
        self.name = encoder.name
        self._encoder = encoder
        self._rest = rest
        self._known: EncoderInfo | None = None
        self._deployed_at: float | None = None

    async def describe(self) -> EncoderInfo:
        """Say which version serves, or served when it fell asleep."""
        rest = await self._rest(self.name)
        known_now = rest.deployed_at is not None and rest.deployed_at == self._deployed_at
        if self._known is not None and rest.asleep and known_now:
            return self._known
        self._known = await self._encoder.describe()
        self._deployed_at = rest.deployed_at
        return self._known

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed pictures and words on some replica, which wakes it."""
        return await self._encoder.encode(inputs)

    async def caption(self, pictures: Sequence[bytes]) -> Captioned:
        """Describe picture files in words on some replica, which wakes it."""
        return await self._encoder.caption(pictures)


def _read_rests() -> Mapping[str, Rest]:
    if not ray.is_initialized():
        return {}
    try:
        applications = serve.status().applications
    except Exception:  # the controller may be away in many ways, and comes back
        logger.debug("Serve does not say who sleeps", exc_info=True)
        return {}
    return {
        name: Rest(
            # One that is just starting was woken by work, and does not answer yet either.
            asleep=not any(
                each.replica_states.get(state) for each in found.deployments.values() for state in _SERVING
            ),
            deployed_at=found.last_deployed_time_s if found.status == "RUNNING" else None,
        )
        for name, found in applications.items()
    }
