"""The deployments as the pure rooms know them: ports over Serve handles, with deadlines and one retry."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
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

from core.ensemble import ENSEMBLE, EnsembleResult, Fusion
from core.errors import DeadlineExceeded, ModelUnavailable, VitrineError, expected
from core.search import Query
from core.stages import Stage
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput
from deployments.deadlines import within_deadline

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
            # Serve lets the replica go on when only the wait for it is cancelled.
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
        """Embed pictures and words on some replica."""
        with Stage("encode", self.name):
            encoded: Encoded = await self._replicas.call("encode", list(inputs))
        self._remember(encoded.info)
        return encoded

    async def caption(self, pictures: Sequence[bytes]) -> Captioned:
        """Describe picture files in words on some replica."""
        with Stage("caption", self.name):
            captioned: Captioned = await self._replicas.call("caption", list(pictures))
        self._remember(captioned.info)
        return captioned

    def _remember(self, info: EncoderInfo) -> None:
        self._info = info
        self._known_until = time.monotonic() + INFO_TTL_S


class HandleEnsemble:
    """The ensemble's application."""

    def __init__(self, deadline_s: float) -> None:
        self._replicas = DeploymentHandle(ENSEMBLE, "Ensemble", deadline_s)

    async def search(
        self, query: Query, weights: Mapping[str, float] | None = None, fusion: Fusion | None = None
    ) -> EnsembleResult:
        """Search with all members; weights and fusion default to the ensemble's configuration."""
        with Stage("ensemble", ENSEMBLE):
            result: EnsembleResult = await self._replicas.call("search", query, weights, fusion)
        return result
