"""Build the FastAPI application: middleware, routes and error handlers over the services.

`python -m deployments.http.app docs/openapi.json` writes its OpenAPI document.
"""

import json
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import yaml
from fastapi import Depends, FastAPI
from fastapi.utils import deep_dict_update

from core.errors import RELEASE
from deployments.config import GatewayArgs
from deployments.http import errors
from deployments.http.auth import Authentication
from deployments.http.errors import ANY_CALL, fails
from deployments.http.middleware import Admission, BodyLimit, Deadline, Methods, RequestId
from deployments.http.requests import known_query
from deployments.http.routes import (
    batches,
    captions,
    embeddings,
    images,
    jobs,
    keys,
    pages,
    products,
    search,
    status,
    weaviate,
)
from deployments.observability.access_log import AccessLog

EXAMPLES = Path(__file__).parent / "examples"
"""Parts of the OpenAPI document, by path: examples of bodies and of answers."""
GROUPS = (products, batches, images, search, embeddings, weaviate, captions, status, keys, jobs)


def create_app(args: GatewayArgs) -> FastAPI:
    """Build the application; `app.state.services` must be set before the first request."""
    app = _bare_app()
    errors.install(app)
    # What is added last sees the request first.
    routes = [route for group in (*GROUPS, pages) for route in group.router.routes]
    app.add_middleware(Methods, routes=routes)
    app.add_middleware(BodyLimit, max_bytes=args.max_body_bytes)
    app.add_middleware(Authentication)
    app.add_middleware(Deadline, limit_s=args.admission.request_deadline_s)
    # Before the deadline: what is refused at once needs none, and under overload that is nearly everything.
    app.add_middleware(
        Admission, max_in_flight=args.admission.max_in_flight, search_slowdown=args.admission.search_slowdown
    )
    app.add_middleware(AccessLog, routes=routes)
    app.add_middleware(RequestId)
    return app


class _App(FastAPI):
    """A FastAPI application whose document has the examples of `examples/`."""

    _building = Lock()

    def openapi(self) -> dict[str, Any]:
        """Build the document once, which takes a second; safe to call from several threads."""
        with self._building:
            if self.openapi_schema is None:
                document = super().openapi()
                for file in sorted(EXAMPLES.glob("*.yaml")):
                    deep_dict_update(document["paths"], yaml.safe_load(file.read_text()))
        return super().openapi()


def _bare_app() -> FastAPI:
    app = _App(
        title="Vitrine",
        summary="Visual search for product catalogs",
        version=RELEASE,
        # These pages load scripts from a CDN, beside the key that the search page keeps.
        docs_url=None,
        redoc_url=None,
        # `pages` has it: here it would be built on the event loop.
        openapi_url=None,
        # A redirect would be an answer without a body, and clients drop the body or the key on its way.
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    for group in GROUPS:
        app.include_router(group.router, dependencies=[Depends(known_query)], responses=fails(*ANY_CALL))
    # The page keeps its query in its own URL.
    app.include_router(pages.router)
    return app


def describe() -> dict[str, Any]:
    """Return the OpenAPI document, without a service behind it."""
    return _bare_app().openapi()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(describe(), indent=1, ensure_ascii=False) + "\n")
