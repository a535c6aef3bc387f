"""Search."""

from dataclasses import replace

from fastapi import APIRouter, Request

from deployments.api.answers import SearchView
from deployments.api.fails import fails
from deployments.api.queries import query_of, read_query
from deployments.api.query_bodies import SearchBody
from deployments.scopes import READ
from deployments.services import services

router = APIRouter(prefix="/v1", tags=["search"], dependencies=[READ])
QUERY = query_of(SearchBody)


@router.post(
    "/search",
    summary="Search by picture, words, products, or all of them",
    openapi_extra=QUERY.described,
    responses=fails(404, 409, 424),
)
async def search(request: Request) -> SearchView:
    """Find products.

    JSON, or multipart with the same JSON in the field `request` and picture files in other fields. A
    file that no part of the query names as its `upload` joins the query with weight 1.
    """
    service = services(request)
    body, query = await read_query(request, service, QUERY)
    found = await service.search.search(replace(query, model=body.model))
    return SearchView.of(found, request.state.request_id)
