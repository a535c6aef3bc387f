"""Build the FastAPI application: middleware, routes and error handlers over the services."""

from fastapi import Depends, FastAPI

from deployments.config import GatewayArgs
from deployments.http import errors
from deployments.http.auth import Authentication
from deployments.http.dependencies import known_query
from deployments.http.limits import Admission, Deadline
from deployments.http.middleware import BodyLimit, Methods, RequestId
from deployments.http.openapi import Document, DocumentedApp
from deployments.http.routes import (
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

GROUPS = (products, images, search, embeddings, weaviate, captions, status, keys, jobs)


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


def describe() -> Document:
    """The OpenAPI document, without a service behind it."""
    return _bare_app().openapi()


def _bare_app() -> FastAPI:
    app = DocumentedApp(
        title="Vitrine",
        summary="Visual search for product catalogs",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        # A redirect would be an answer without a body, and clients drop the body or the key on its way.
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    for group in GROUPS:
        app.include_router(group.router, dependencies=[Depends(known_query)])
    # The page keeps its query in its own URL.
    app.include_router(pages.router)
    return app
