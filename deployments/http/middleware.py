"""ASGI middleware for every request: request id, body limit, HEAD and OPTIONS."""

import re
from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import InputTooLarge
from deployments.http.errors import GATEWAY_HEADER, NOT_CACHED, answer
from deployments.observability.telemetry import as_request, id_headers, new_request_id

_CLEAN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestId:
    """Gives each request an id: the caller's X-Request-ID where it is clean, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add the mark, the id and by default `no-store` to the answer."""
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
                # Caches do not know X-API-Key, and some keep answers without cache headers for minutes. Health
                # checks must not be cached either.
                MutableHeaders(scope=message).setdefault(*NOT_CACHED)
            await send(message)

        with as_request(request_id):
            await self._app(scope, receive, send_with_id)


class BodyLimit:
    """Refuses bodies above a number of bytes, by their declared length or as they arrive."""

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


class Methods:
    """Answers HEAD as GET without its body (RFC 9110, 9.3.2), and OPTIONS and 405 with the methods of a path."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; routes see GET in place of HEAD."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and (allowed := self._allowed(scope)):
            await Response(status_code=204, headers={"Allow": allowed})(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def send_in_form(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                MutableHeaders(scope=message)["Allow"] = self._allowed(scope)
            if message["type"] == "http.response.body" and is_head:
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send_in_form)

    def _allowed(self, scope: Scope) -> str:
        """List the methods of all routes with this path; empty where there are none."""
        methods: set[str] = set()
        for route in self._routes:
            if isinstance(route, Route) and route.matches(scope)[0] != Match.NONE:
                methods |= route.methods or set()
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods | {"OPTIONS"})) if methods else ""
