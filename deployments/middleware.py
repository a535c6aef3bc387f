"""What happens to every request before its route: an id, the gateway's mark, and a bound on its body."""

import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import InputTooLarge
from deployments.errors import GATEWAY_HEADER, NOT_CACHED, answer
from deployments.request_ids import as_request, id_headers, new_request_id

_CLEAN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestId:
    """Give each request an id: the caller's X-Request-ID where it is clean, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; put mark and id on the answer, and keep it out of caches by default."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = sent if _CLEAN_ID.fullmatch(sent) else new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        own = {GATEWAY_HEADER: "1", **id_headers(request_id)}
        headers = [(name.lower().encode(), value.encode()) for name, value in own.items()]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *headers]}
                # Caches know that answers to Authorization are not for all, but nothing of X-API-Key, and some
                # keep for minutes what says nothing of caching; nor may they keep the state of health.
                MutableHeaders(scope=message).setdefault(*NOT_CACHED)
            await send(message)

        with as_request(request_id):
            await self._app(scope, receive, send_with_id)


class BodyLimit:
    """Refuse bodies above a number of bytes, by their declared length or as they arrive."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on while its body keeps within the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await answer(self._error(), scope["state"]["request_id"])(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._error()
            return message

        await self._app(scope, receive_within_limit, send)

    def _error(self) -> InputTooLarge:
        return InputTooLarge(f"the request body is larger than the limit of {self._max_bytes} bytes")
