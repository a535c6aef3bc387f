"""Calls to an encoder that single images of several requests share.

A call of Serve takes more processor time than a small image does. So where calls are under way, images wait for a
moment and go together.

Serve scales a deployment by the number of its calls, which by default it counts at handles. So each request that
shares a call is counted as if it had its own. For that this module holds private names of Ray Serve 2.60.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from core.concurrency import batched_by_bytes, input_bytes, start_shared
from core.errors import Internal, VitrineError, expected
from core.telemetry import current_request_id
from core.types import Encoded, ImageInput
from deployments.observability.telemetry import as_request, trace_id

CALLS_A_REPLICA = 2
"""Calls of single images to a replica at once. It decodes the second while the model is busy with the first."""
HOLD_S = 0.01
"""Longest wait for a shared call to begin."""
MAX_TOGETHER = 16
"""Most images of one call, so that other replicas have some too."""


class Replicas(Protocol):
    """Handle of a deployment, as `handles.DeploymentHandle`."""

    serve_handle: Any
    """Serve's own handle; None before the first call."""

    async def call(self, method: str, *args: object) -> Any:
        """Call a method of some replica."""
        ...

    def in_time(self) -> AbstractAsyncContextManager[None]:
        """End the block by DeadlineExceeded at the deadline of a call that begins now."""
        ...


@dataclass(eq=False, slots=True)
class _Waiting:
    image: ImageInput
    request_id: str
    counted: ExitStack
    answer: asyncio.Future[Encoded]
    together: "list[_Waiting]" = field(default_factory=list)
    """All images of its call."""
    call: asyncio.Task[None] | None = None


class SharedCalls:
    """Encodes single images, each for a caller of its own, who gets an answer or an error alone.

    Answers come when the slowest image of a call is done.

    As long as few calls are under way, an image has its own call. Beyond that images wait until a call ends, or for
    `HOLD_S`. A request that is traced goes alone, for a shared call belongs to no trace.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._waiting: dict[_Waiting, None] = {}
        self._calls = 0

    async def encode(self, image: ImageInput) -> Encoded:
        """Embed one image; same errors as `core.ports.EncoderClient.encode`."""
        most = CALLS_A_REPLICA * _known_replicas(self._replicas.serve_handle)
        if self._calls < most or not most or trace_id() is not None:
            return await self._call([image])
        async with self._replicas.in_time():
            return await self._wait(image)

    async def _call(self, images: list[ImageInput]) -> Encoded:
        self._calls += 1
        try:
            encoded: Encoded = await self._replicas.call("encode", images)
            return encoded
        finally:
            self._calls -= 1
            self._send()

    async def _wait(self, image: ImageInput) -> Encoded:
        loop = asyncio.get_running_loop()
        with ExitStack() as counted:
            counted.enter_context(_counted(self._replicas.serve_handle))
            waiting = _Waiting(image, current_request_id(), counted, loop.create_future())
            self._waiting[waiting] = None
            timer = loop.call_later(HOLD_S, self._send_now, waiting)
            try:
                return await waiting.answer
            finally:
                timer.cancel()
                self._waiting.pop(waiting, None)
                if waiting.call is not None and all(each.answer.done() for each in waiting.together):
                    # Every caller has an answer or has gone.
                    waiting.call.cancel()
                # Without this cycle the images are freed at once, not by the garbage collector.
                waiting.together = []

    def _send_now(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._send()

    def _send(self) -> None:
        """Send the images that have waited longest."""
        if not self._waiting:
            return
        waiting = list(self._waiting)
        group = next(batched_by_bytes(waiting, lambda each: input_bytes(each.image), MAX_TOGETHER))
        for each in group:
            del self._waiting[each]
        self._start(group)

    def _start(self, group: list[_Waiting]) -> None:
        # Serve counts the call itself.
        group[0].counted.close()
        call = start_shared(self._answer(group))
        for each in group:
            each.together, each.call = group, call

    async def _answer(self, group: list[_Waiting]) -> None:
        outcomes: list[Encoded | VitrineError]
        try:
            with as_request(group[0].request_id):
                encoded = await self._call([each.image for each in group])
            # Callers change their errors, and a replica answers equal images by the same one.
            outcomes = [
                replace(encoded, vectors=[copy(each) if isinstance(each, VitrineError) else each])
                for each in encoded.vectors
            ]
        except Exception as error:
            failure = expected(error, "encoding images of several requests")
            if isinstance(failure, Internal) and len(group) > 1:
                # One image may have caused it.
                for each in group:
                    if not each.answer.done():
                        self._start([each])
                return
            # Callers change their errors.
            outcomes = [copy(failure) for _ in group]
        for each, outcome in zip(group, outcomes, strict=True):
            if each.answer.done():
                continue
            if isinstance(outcome, VitrineError):
                each.answer.set_exception(outcome)
            else:
                each.answer.set_result(outcome)


def _known_replicas(serve_handle: Any) -> int:
    """Count the replicas that a handle of Serve knows; 0 before its first call."""
    router = getattr(serve_handle, "_router", None)
    requests = None if router is None else router._asyncio_router.request_router
    return 0 if requests is None else len(requests.curr_replicas)


@contextmanager
def _counted(serve_handle: Any) -> Iterator[None]:
    """Count one request more, as one of some replica: the autoscaler takes the sum over all."""
    router = serve_handle._router._asyncio_router
    replica = next(iter(router.request_router.curr_replicas), None)
    if replica is None:
        yield
        return
    router._metrics_manager.inc_num_running_requests_for_replica(replica)
    try:
        yield
    finally:
        router._metrics_manager.dec_num_running_requests_for_replica(replica)
