"""Middleware that records each request: metrics, a log line, and a span where it is traced."""

import logging
import time
from collections.abc import Sequence

from opentelemetry.trace import Span
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import Overloaded
from core.telemetry import current_request_id
from deployments.http.middleware import HEALTH
from deployments.observability.metrics import ERRORS, REQUEST_SECONDS, REQUESTS
from deployments.observability.telemetry import (
    RequestRecord,
    answer_headers,
    error_type,
    mark_failed,
    recording,
    span,
    trace_id,
)

logger = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_CLOSED = 499
"""Status that nginx logs for a client that disconnects before the answer."""
REFUSALS_LINE_S = 1.0
"""Least time between two lines about refused requests."""


class AccessLog:
    """Records requests by route, status, model and time. Nothing of their content: no key and no image."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes
        self._fixed = {
            route.path for route in routes if isinstance(route, Route) and not route.param_convertors
        }
        self._refused = 0
        self._refusals_logged_at = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and record it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *answer_headers()]}
            await send(message)

        with recording() as record, span("request") as current:
            try:
                await self._app(scope, receive, send_and_note)
            except BaseException as error:
                # There is no answer, or none that middleware sees.
                record.error = error_type(error)
                if record.error == "canceled":
                    status = _CLIENT_CLOSED
                raise
            finally:
                took_s = time.perf_counter() - started
                route = self._route(scope)
                method = scope["method"] if scope["method"] in _METHODS else "OTHER"
                REQUESTS.add(method=method, status=str(status), route=route, model=record.model)
                REQUEST_SECONDS.observe(took_s, route=route, model=record.model)
                if record.error is not None:
                    ERRORS.add(stage="request", model=record.model, type=record.error)
                if current.is_recording():
                    _describe(current, method, route, status, record)
                self._log(scope["path"], method, route, status, record, took_s * 1e3)

    def _route(self, scope: Scope) -> str:
        """Return the pattern of the route: paths hold ids, and each would make a metric of its own."""
        route = scope.get("route")
        # A refused request, perhaps one of hundreds a second, has no route yet. Most need no match of patterns.
        if route is None and scope["path"] in self._fixed:
            return str(scope["path"])
        route = route or next((each for each in self._routes if each.matches(scope)[0] != Match.NONE), None)
        return route.path if isinstance(route, Route) else "unmatched"

    def _log(self, path: str, method: str, route: str, status: int, record: RequestRecord, ms: float) -> None:
        refused: int | None = None
        if record.error == Overloaded.kind:
            # Refused requests share a line: hundreds of lines a second would cost too much.
            self._refused += 1
            now = time.monotonic()
            if now - self._refusals_logged_at < REFUSALS_LINE_S:
                return
            refused, self._refused, self._refusals_logged_at = self._refused, 0, now
        model = ",".join(record.models) or "none"
        facts = {
            "request_id": current_request_id(),
            "method": method,
            "route": route,
            "status": status,
            "ms": round(ms, 3),
            "model": model,
        }
        more = {"error": record.error, "trace_id": trace_id(), "refused": refused}
        calm = logging.DEBUG if path.startswith(HEALTH) else logging.INFO
        logger.log(
            logging.WARNING if status >= 500 else calm,
            "%s %s %d %.1f ms, model %s",
            *(method, route, status, ms, model),
            extra={**facts, **{name: value for name, value in more.items() if value is not None}},
        )


def _describe(current: Span, method: str, route: str, status: int, record: RequestRecord) -> None:
    current.update_name(f"{method} {route}")
    current.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "vitrine.model": record.model,
            "vitrine.request_id": current_request_id(),
        }
    )
    if status >= 500:
        mark_failed(current, record.error or str(status))
