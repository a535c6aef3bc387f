"""Clients of other deployments over Serve handles: deadlines, one retry, encoders scaled to zero."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import ray
from ray import serve
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    PendingCallsLimitExceeded,
    RayActorError,
    RayTaskError,
    RpcError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from core.concurrency import start_shared
from core.errors import DeadlineExceeded, ModelUnavailable, VitrineError, expected
from core.ports import EncoderClient
from core.search import ENSEMBLE, SearchQuery, SearchResult
from core.telemetry import Stage
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput
from deployments.http.limits import within_deadline

logger = logging.getLogger(__name__)

INFO_TTL_S = 2.0
"""How long an encoder's description is believed; every answer of it refreshes the description."""

_LOST = (
    RayActorError,
    ReplicaUnavailableError,
    TaskCancelledError,
    WorkerCrashedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RpcError,
)
"""What Ray and Serve raise when a replica, its process or its machine is gone before it has answered."""
_LOST_CODES = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
)
"""In throughput mode handles speak gRPC: a replica that dies or drains while it answers ends the call so; INTERNAL
is a stream that was reset. UNKNOWN is an error of the replica's code."""


class _ReplicaLost(Exception):
    """A replica went away with the call; another may answer."""


class DeploymentHandle:
    """One deployment of another application, looked up at the first call.

    A handle may hang for ever on an application that failed to deploy, so every call has a deadline.
    A replica that dies takes its requests with it; what Vitrine asks of replicas is idempotent, so such
    a call is repeated once. An error of the replica's code is not: it would fail again, and is no outage.
    """

    def __init__(self, app_name: str, deployment: str, deadline_s: float) -> None:
        self._app_name = app_name
        self._deployment = deployment
        self._deadline_s = deadline_s
        self._handle: Any = None
        self._methods: dict[str, Any] = {}

    async def call(self, method: str, *args: object) -> Any:
        """Call a method of some replica.

        Raises:
            VitrineError: whatever the replica raised of ours.
            ModelUnavailable: no replica answers, or all are busy.
            DeadlineExceeded: the call took too long.
            Internal: the replica raised anything else; the log holds the traceback.
        """
        limit_s = within_deadline(self._deadline_s)
        try:
            async with asyncio.timeout(limit_s):
                try:
                    return await self._call_once(method, *args)
                except _ReplicaLost as lost:
                    logger.info("%s is asked again: %s", self._app_name, lost)
                    return await self._call_once(method, *args)
        except TimeoutError:
            raise DeadlineExceeded(f"{self._app_name} did not answer within {limit_s:.3g} s") from None
        except _ReplicaLost as lost:
            logger.warning("%s failed: %s", self._app_name, lost)
            raise ModelUnavailable(f"{self._app_name} is not available") from lost

    async def _call_once(self, method: str, *args: object) -> Any:
        response = (await self._method(method)).remote(*args)
        try:
            return await response
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # Nobody here has given up: the replica was stopped, and sends its own cancellation.
                raise _ReplicaLost("the replica was stopped") from None
            # Serve lets the replica go on when only the wait for it is canceled.
            response.cancel()
            raise
        except Exception as error:
            raise self._meaning(error) from None

    async def _method(self, method: str) -> Any:
        if self._handle is None:
            try:
                # In a thread: it waits for the controller, and must not keep the event loop meanwhile.
                self._handle = await asyncio.to_thread(
                    serve.get_deployment_handle, self._deployment, app_name=self._app_name
                )
            except Exception as error:  # no code of ours runs there: whatever it is, Serve is away
                logger.warning("%s is not found", self._app_name, exc_info=True)
                raise _ReplicaLost(f"no handle: {type(error).__name__}") from error
        if method not in self._methods:
            # Serve makes a new handle of each method that is named.
            self._methods[method] = getattr(self._handle, method)
        return self._methods[method]

    def _meaning(self, error: Exception) -> Exception:
        """Tell what an error of a call means: a refusal, a lost replica, or a bug."""
        # The cause is the error as the replica raised it; only the wrapping has the remote traceback.
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, VitrineError):
            return cause
        if isinstance(cause, BackPressureError | PendingCallsLimitExceeded):
            return ModelUnavailable(f"{self._app_name} is busy; try again shortly")
        if isinstance(cause, DeploymentUnavailableError):
            logger.warning("%s failed to deploy", self._app_name)
            return ModelUnavailable(f"{self._app_name} is not available")
        if isinstance(cause, _LOST) or (
            isinstance(cause, grpc.aio.AioRpcError) and cause.code() in _LOST_CODES
        ):
            return _ReplicaLost(f"{type(cause).__name__}: {cause}")
        return expected(error, f"a call of {self._app_name}")


class HandleEncoder:
    """`core.ports.EncoderClient` over an encoder's application."""

    def __init__(self, name: str, deadline_s: float) -> None:
        self.name = name
        self._replicas = DeploymentHandle(name, "Encoder", deadline_s)
        self._info: EncoderInfo | None = None
        self._known_until = 0.0

    async def describe(self) -> EncoderInfo:
        """Say which version serves, at most `INFO_TTL_S` late."""
        if self._info is None or time.monotonic() > self._known_until:
            self._remember(await self._replicas.call("describe"))
        assert self._info is not None
        return self._info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed images and words on some replica."""
        with Stage("encode", self.name):
            encoded: Encoded = await self._replicas.call("encode", list(inputs))
        self._remember(encoded.info)
        return encoded

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        """Describe image files in words on some replica."""
        with Stage("caption", self.name):
            captioned: Captioned = await self._replicas.call("caption", list(images))
        self._remember(captioned.info)
        return captioned

    def _remember(self, info: EncoderInfo) -> None:
        self._info = info
        self._known_until = time.monotonic() + INFO_TTL_S


class HandleEnsemble:
    """The ensemble's application."""

    def __init__(self, deadline_s: float) -> None:
        self._replicas = DeploymentHandle(ENSEMBLE, "Ensemble", deadline_s)

    async def search(self, query: SearchQuery) -> SearchResult:
        """Search with all members; weights and fusion default to the ensemble's configuration."""
        with Stage("ensemble", ENSEMBLE):
            result: SearchResult = await self._replicas.call("search", query)
        return result


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
            # Not canceled: without a controller each attempt would leave one more thread waiting for it.
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
        """Embed images and words on some replica, which wakes it."""
        return await self._encoder.encode(inputs)

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        """Describe image files in words on some replica, which wakes it."""
        return await self._encoder.caption(images)


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
