"""Middleware that records each request: metrics, a span where it is traced, and a log line."""

import logging
import time
from collections.abc import Sequence

from opentelemetry.trace import Span
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import Overloaded
from core.telemetry import current_request_id
from deployments.http.limits import HEALTH
from deployments.observability.metrics import ERRORS, REQUEST_SECONDS, REQUESTS
from deployments.observability.request_context import RequestRecord, recording
from deployments.observability.telemetry import error_type
from deployments.observability.tracing import answer_headers, mark_failed, span, trace_id

logger = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_GONE = 499
"""What nginx calls it when a client goes away before the answer."""
_REFUSED = Overloaded.kind
REFUSALS_LINE_S = 1.0
"""Time between two lines about requests that were refused for want of room."""


class Observed:
    """Tell of requests by route, status, model and time; never what they hold, so no key and no image."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes
        self._fixed = {
            route.path for route in routes if isinstance(route, Route) and not route.param_convertors
        }
        self._refused = _Refused()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and tell of it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with recording() as record, span("request") as current:
            request = _Request(scope, record, self._refused)

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
                request.tell(self._route(scope), current)

    def _route(self, scope: Scope) -> str:
        """Name the route by its pattern: paths hold ids, and would make a metric of each."""
        route = scope.get("route")
        # What is refused at the door, perhaps hundreds a second, has no route yet: most need no look at patterns.
        if route is None and scope["path"] in self._fixed:
            return str(scope["path"])
        route = route or next((each for each in self._routes if each.matches(scope)[0] != Match.NONE), None)
        return route.path if isinstance(route, Route) else "unmatched"


class _Refused:
    """Counts what is refused for want of room: a line tells of all since the one before, at most one a second.

    A line for each, hundreds a second, would take the processor from what is answered.
    """

    def __init__(self) -> None:
        self._untold = 0
        self._told_at = float("-inf")

    def tell(self) -> int | None:
        """Count one more; returns how many a line is to tell of, or None where one was written just now."""
        self._untold += 1
        now = time.monotonic()
        if now - self._told_at < REFUSALS_LINE_S:
            return None
        number, self._untold, self._told_at = self._untold, 0, now
        return number


class _Request:
    """One request while it is answered."""

    def __init__(self, scope: Scope, record: RequestRecord, refused: _Refused) -> None:
        self.status = 500
        self._method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._is_check = scope["path"].startswith(HEALTH)
        self._record = record
        self._refused = refused
        self._started = time.perf_counter()

    def fail(self, error: BaseException) -> None:
        """Note that there is no answer, or none that middleware sees."""
        self._record.error = error_type(error)
        if self._record.error == "canceled":
            self.status = _CLIENT_GONE

    def tell(self, route: str, current: Span) -> None:
        """Tell of the answer."""
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
        if self._record.error == _REFUSED and (number := self._refused.tell()) is None:
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
