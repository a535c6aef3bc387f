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
from deployments.observability.request_context import RequestRecord, recording
from deployments.observability.telemetry import error_type
from deployments.observability.tracing import answer_headers, mark_failed, span, trace_id

logger = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_CLOSED = 499
"""Status that nginx logs for a client that disconnects before the answer."""
_REFUSED = Overloaded.kind
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
        self._refusals = _Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and record it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with recording() as record, span("request") as current:
            request = _Request(scope, record, self._refusals)

            async def send_and_note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    request.status = message["status"]
                    message = {**message, "headers": [*message.get("headers", []), *answer_headers()]}
                await send(message)

            try:
                await self._app(scope, receive, send_and_note)
            except BaseException as error:
                request.fail(error)
                raise
            finally:
                request.end(self._route(scope), current)

    def _route(self, scope: Scope) -> str:
        """Return the pattern of the route: paths hold ids, and each would make a metric of its own."""
        route = scope.get("route")
        # A refused request, perhaps one of hundreds a second, has no route yet. Most need no match of patterns.
        if route is None and scope["path"] in self._fixed:
            return str(scope["path"])
        route = route or next((each for each in self._routes if each.matches(scope)[0] != Match.NONE), None)
        return route.path if isinstance(route, Route) else "unmatched"


class _Refusals:
    """Counts refused requests, which share a log line: hundreds of lines a second would cost too much."""

    def __init__(self) -> None:
        self._count = 0
        self._logged_at = float("-inf")

    def add(self) -> int | None:
        """Count one more; returns the number for the next line, or None where one was written just now."""
        self._count += 1
        now = time.monotonic()
        if now - self._logged_at < REFUSALS_LINE_S:
            return None
        number, self._count, self._logged_at = self._count, 0, now
        return number


class _Request:
    """One request while it is answered."""

    def __init__(self, scope: Scope, record: RequestRecord, refusals: _Refusals) -> None:
        self.status = 500
        self._method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._is_check = scope["path"].startswith(HEALTH)
        self._record = record
        self._refusals = refusals
        self._started = time.perf_counter()

    def fail(self, error: BaseException) -> None:
        """Note that there is no answer, or none that middleware sees."""
        self._record.error = error_type(error)
        if self._record.error == "canceled":
            self.status = _CLIENT_CLOSED

    def end(self, route: str, current: Span) -> None:
        """Record the answer."""
        took_s = time.perf_counter() - self._started
        record, labels = self._record, {"route": route, "model": self._record.model}
        REQUESTS.add(method=self._method, status=str(self.status), **labels)
        REQUEST_SECONDS.observe(took_s, **labels)
        if record.error is not None:
            ERRORS.add(stage="request", model=record.model, type=record.error)
        if current.is_recording():
            self._describe(current, route)
        self._log(route, round(took_s * 1e3, 3))

    def _describe(self, current: Span, route: str) -> None:
        current.update_name(f"{self._method} {route}")
        current.set_attributes(
            {
                "http.request.method": self._method,
                "http.route": route,
                "http.response.status_code": self.status,
                "vitrine.model": self._record.model,
                "vitrine.request_id": current_request_id(),
            }
        )
        if self.status >= 500:
            mark_failed(current, self._record.error or str(self.status))

    def _log(self, route: str, ms: float) -> None:
        number = None
        if self._record.error == _REFUSED and (number := self._refusals.add()) is None:
            return
        model = ",".join(self._record.models) or "none"
        facts = {"request_id": current_request_id(), "method": self._method, "route": route}
        facts |= {"status": self.status, "ms": ms, "model": model}
        more = {"error": self._record.error, "trace_id": trace_id(), "refused": number}
        calm = logging.DEBUG if self._is_check else logging.INFO
        logger.log(
            logging.WARNING if self.status >= 500 else calm,
            "%s %s %d %.1f ms, model %s",
            *(self._method, route, self.status, ms, model),
            extra=facts | {name: value for name, value in more.items() if value is not None},
        )
