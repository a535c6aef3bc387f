"""The FastAPI application: middleware, routes and error table over the services."""

from fastapi import Depends, FastAPI

from deployments import errors
from deployments.api import products, search, status
from deployments.api.bodies import known_query
from deployments.middleware import BodyLimit, RequestId


def create_app(max_body_bytes: int) -> FastAPI:
    """Build the application; `app.state.services` must be set before the first request."""
    app = FastAPI(
        title="Vitrine",
        summary="Visual search for product catalogues",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    errors.install(app)
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    app.add_middleware(RequestId)
    for group in (products, search, status):
        app.include_router(group.router, dependencies=[Depends(known_query)])
    return app
