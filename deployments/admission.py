"""How many requests a replica has in work at once."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import Overloaded
from deployments.errors import answer
from deployments.search_limit import SearchLimit

HEALTH = ("/health/", "/.well-known/")
"""Below these are health checks. Checks are let in always: a replica that is busy is not ill."""

SEARCHES = ("/v1/search", "/v1/compare")
SIMILAR = "/similar"
"""What shoppers wait for: these paths, and those that end so. They have a limit of their own, which follows
the time that they take; what makes batches, as embeddings do, is let in up to the bound of all."""


SEARCH_REFUSED = "X-Search-Refused"
"""Tells the HAProxy in front that there was no room for a search; it takes the header off, and while it sees
many, refuses a part of the searches itself."""
OVERLOADED = "as many requests as possible are in work; try again shortly"


class Admission:
    """Refuse at once what would only wait: callers learn within milliseconds that they should come again.

    Serve bounds its own queues too, but answers in a form of its own, and only after the queue is full.
    """

    def __init__(self, app: ASGIApp, max_in_flight: int, search_slowdown: float) -> None:
        self._app = app
        self._free = max_in_flight
        self._searches = SearchLimit(search_slowdown, max_in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] != "http" or scope["path"].startswith(HEALTH):
            await self._app(scope, receive, send)
        elif self._free <= 0:
            await _refusal(scope)(scope, receive, send)
        elif not _is_search(scope["path"]):
            await self._work(scope, receive, send)
        elif (entry := self._searches.enter()) is None:
            await _refusal(scope)(scope, receive, send)
        else:
            try:
                await self._work(scope, receive, send)
            finally:
                self._searches.leave(entry)

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._free -= 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._free += 1


def _is_search(path: str) -> bool:
    return path in SEARCHES or path.endswith(SIMILAR)


def _refusal(scope: Scope) -> JSONResponse:
    refusal = answer(Overloaded(OVERLOADED), scope["state"]["request_id"])
    if _is_search(scope["path"]):
        refusal.headers[SEARCH_REFUSED] = "1"
    return refusal
