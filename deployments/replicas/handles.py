"""Clients of other deployments over Serve handles: deadlines, one retry, encoders scaled to zero."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
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

from core.concurrency import TtlCache, start_shared
from core.errors import DeadlineExceeded, ModelUnavailable, VitrineError, expected
from core.search import ENSEMBLE, SearchQuery, SearchResult
from core.telemetry import Stage
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput, Matched, NamedFile
from deployments.http.middleware import within_deadline
from deployments.replicas.shared_calls import SharedCalls

logger = logging.getLogger(__name__)

INFO_TTL_S = 2.0
"""Time to live of an encoder's description. Every answer of the encoder refreshes it."""

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
"""Errors of Ray and Serve for a replica, process or machine that died before it answered."""
_LOST_CODES = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
)
"""Codes of gRPC, which handles speak in throughput mode, for a replica that dies or drains while it answers.

INTERNAL is a stream that was reset. UNKNOWN, an error of the replica's code, is not among them."""


class _ReplicaLost(Exception):
    """A replica died with the call. Another may answer."""


class DeploymentHandle:
    """One deployment of another application, looked up at the first call.

    Every call has a deadline: a handle may hang on an application that failed to deploy. A call that died with its
    replica is repeated once, since all calls are idempotent. An error of the replica's code is not repeated: it
    would fail again, and is no outage.
    """

    def __init__(self, app_name: str, deployment: str, deadline_s: float) -> None:
        self._app_name = app_name
        self._deployment = deployment
        self._deadline_s = deadline_s
        self.serve_handle: Any = None
        self._methods: dict[str, Any] = {}

    async def call(self, method: str, *args: object) -> Any:
        """Call a method of some replica.

        Raises:
            VitrineError: whatever the replica raised of ours.
            ModelUnavailable: no replica answers, or all are busy.
            DeadlineExceeded: the call took too long.
            Internal: the replica raised anything else; the log holds the traceback.
        """
        async with self.in_time():
            try:
                try:
                    return await self._call_once(method, *args)
                except _ReplicaLost as lost:
                    logger.info("retrying a call of %s: %s", self._app_name, lost)
                    return await self._call_once(method, *args)
            except _ReplicaLost as lost:
                logger.warning("%s failed: %s", self._app_name, lost)
                raise ModelUnavailable(f"{self._app_name} is not available") from lost

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """End the block by DeadlineExceeded at the deadline of a call that begins now."""
        limit_s = within_deadline(self._deadline_s)
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            raise DeadlineExceeded(f"{self._app_name} did not answer within {limit_s:.3g} s") from None

    async def _call_once(self, method: str, *args: object) -> Any:
        response = (await self._method(method)).remote(*args)
        try:
            return await response
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # No caller has given up: the replica was stopped, and sends its own cancellation.
                raise _ReplicaLost("the replica was stopped") from None
            # Serve does not stop the replica when only the wait for it is canceled.
            response.cancel()
            raise
        except Exception as error:
            raise self._meaning(error) from None

    async def _method(self, method: str) -> Any:
        if self.serve_handle is None:
            try:
                # In a thread, since it blocks until the controller answers.
                self.serve_handle = await asyncio.to_thread(
                    serve.get_deployment_handle, self._deployment, app_name=self._app_name
                )
            except Exception as error:  # no code of ours runs there, so Serve is away
                logger.warning("%s is not found", self._app_name, exc_info=True)
                raise _ReplicaLost(f"no handle: {type(error).__name__}") from error
        if method not in self._methods:
            # Serve makes a new handle for each access of a method.
            self._methods[method] = getattr(self.serve_handle, method)
        return self._methods[method]

    def _meaning(self, error: Exception) -> Exception:
        """Classify an error of a call as a refusal, a lost replica, or a bug."""
        # The cause is the error that the replica raised. Only its wrapper has the remote traceback.
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


SCALE_TTL_S = 2.0
NOTED_TTL_S = 10.0
"""Time between two questions for the deployment that gives an encoder's answers. Each question reads the state of all
applications, which holds the interpreter's lock for tens of milliseconds on two busy cores."""
SCALE_TIMEOUT_S = 5.0
"""Time for Serve's controller to answer. Without an answer an encoder counts as running."""
_SERVING = ("RUNNING", "PENDING_MIGRATION")
"""States of replicas that answer."""


@dataclass(frozen=True, slots=True)
class Scale:
    """State of an encoder's application, as Serve reports it.

    `at_zero` means that no replica answers. `deployed_at` is the Unix time of the last deployment, in seconds; None
    while one is under way, or has failed.
    """

    at_zero: bool = False
    deployed_at: float | None = None

    @property
    def is_idle(self) -> bool:
        """True where nothing is wrong with the encoder: it has no replica, and the next call starts one."""
        return self.at_zero and self.deployed_at is not None


class Scales:
    """States of all applications; Serve is asked at most every `SCALE_TTL_S`."""

    def __init__(self) -> None:
        # Shared: without a controller each question would leave one more thread waiting for it.
        self._scales = TtlCache[None, Mapping[str, Scale]](lambda _: asyncio.to_thread(_scales), SCALE_TTL_S)

    async def of(self, name: str) -> Scale:
        """Return the state of an encoder; one that Serve does not report counts as running."""
        try:
            async with asyncio.timeout(SCALE_TIMEOUT_S):
                return (await self._scales.get(None)).get(name, Scale())
        except TimeoutError:
            return Scale()


def _scales() -> Mapping[str, Scale]:
    if not ray.is_initialized():
        return {}
    try:
        applications = serve.status().applications
    except Exception:  # the controller may be away in many ways, and comes back
        logger.debug("Serve does not report its applications", exc_info=True)
        return {}
    return {
        name: Scale(
            # A replica that is starting does not answer yet.
            at_zero=not any(
                each.replica_states.get(state) for each in found.deployments.values() for state in _SERVING
            ),
            deployed_at=found.last_deployed_time_s if found.status == "RUNNING" else None,
        )
        for name, found in applications.items()
    }


class HandleEncoder:
    """`core.ports.EncoderClient` over an encoder's application."""

    def __init__(
        self,
        name: str,
        deadline_s: float,
        scale: Callable[[str], Awaitable[Scale]] | None = None,
        starts: bool = True,
        index_schema: str = "",
    ) -> None:
        """`index_schema` is that of the collections of this service, which encoders do not know.

        With `scale`, it knows which deployment gave the description that it has, for `last_info`.

        Unless it `starts`, `describe` then starts no replica of an encoder that is scaled to zero. After each
        deployment that has not answered yet it does: only the encoder knows its version.
        """
        self.name = name
        self._replicas = DeploymentHandle(name, "Encoder", deadline_s)
        self._shared = SharedCalls(self._replicas)
        self._scale = scale
        self._starts = starts
        self._index_schema = index_schema
        self._info: EncoderInfo | None = None
        self._known_until = 0.0
        self._deployed_at: float | None = None
        self._noted_at = 0.0
        self._note: asyncio.Task[None] | None = None

    async def describe(self) -> EncoderInfo:
        """Return the version that serves, at most `INFO_TTL_S` late."""
        if self._info is None or time.monotonic() > self._known_until:
            if self._scale is not None and not self._starts:
                scale = await self._scale(self.name)
                if scale.is_idle and (info := self.last_info(scale)) is not None:
                    return info
            self._remember(self._indexed(await self._replicas.call("describe")))
        assert self._info is not None
        return self._info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed images and texts on some replica."""
        with Stage("encode", self.name):
            encoded: Encoded
            if len(inputs) == 1 and not isinstance(inputs[0], str):
                encoded = await self._shared.encode(inputs[0])
            else:
                encoded = await self._replicas.call("encode", list(inputs))
        encoded = replace(encoded, info=self._indexed(encoded.info))
        self._remember(encoded.info)
        return encoded

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        """Write captions for image files on some replica."""
        with Stage("caption", self.name):
            captioned: Captioned = await self._replicas.call("caption", list(images))
        captioned = replace(captioned, info=self._indexed(captioned.info))
        self._remember(captioned.info)
        return captioned

    async def match(self, text: str, images: Sequence[NamedFile]) -> Matched:
        """Score how well a text fits images on some replica."""
        matched: Matched = await self._replicas.call("match", text, list(images))
        return replace(matched, info=self._indexed(matched.info))

    def last_info(self, scale: Scale) -> EncoderInfo | None:
        """Return the last description; None unless the encoder gave it in the deployment of this state."""
        return (
            self._info if self._deployed_at is not None and self._deployed_at == scale.deployed_at else None
        )

    def _indexed(self, info: EncoderInfo) -> EncoderInfo:
        return replace(info, index_schema=self._index_schema)

    def _remember(self, info: EncoderInfo) -> None:
        now_s = time.monotonic()
        if self._scale is not None and (info != self._info or now_s >= self._noted_at + NOTED_TTL_S):
            # In the background, so that no search waits for Serve's controller.
            self._deployed_at, self._noted_at = None, now_s
            self._note = start_shared(self._complete(info, self._scale(self.name)))
        self._info, self._known_until = info, now_s + INFO_TTL_S

    async def _complete(self, info: EncoderInfo, scale: Awaitable[Scale]) -> None:
        deployed_at = (await scale).deployed_at
        if self._info == info:
            self._deployed_at = deployed_at


class HandleEnsemble:
    """The ensemble's application."""

    def __init__(self, deadline_s: float) -> None:
        self._replicas = DeploymentHandle(ENSEMBLE, "Ensemble", deadline_s)

    async def search(self, query: SearchQuery) -> SearchResult:
        """Search with all members; weights and fusion default to the ensemble's configuration."""
        with Stage("ensemble", ENSEMBLE):
            result: SearchResult = await self._replicas.call("search", query)
        return result
