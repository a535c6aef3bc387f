"""Routes of search: search, compare models, attributes to filter by."""

from dataclasses import replace

from fastapi import APIRouter, Request

from core.search import SearchResult
from deployments.http.dependencies import READ, services
from deployments.http.errors import fails
from deployments.http.inputs import query_of, read_query
from deployments.http.responses import product_response, search_details, search_response
from deployments.services import products
from deployments.services.compare import Compared
from vitrine.schemas.products import Attribute, AttributesResponse, AttributeValue
from vitrine.schemas.search import (
    Agreement,
    CompareRequest,
    CompareResponse,
    ModelResults,
    RankedProduct,
    SearchRequest,
    SearchResponse,
)

router = APIRouter(prefix="/v1", tags=["search"], dependencies=[READ])
SEARCH_QUERY = query_of(SearchRequest)


@router.post(
    "/search",
    summary="Search by image, text, products, or all of them",
    openapi_extra=SEARCH_QUERY.described,
    responses=fails(404, 409, 424),
)
async def search(request: Request) -> SearchResponse:
    """Find products.

    JSON, or multipart with the same JSON in the field `request` and image files in other fields. A
    file that no part of the query names as its `upload` joins the query with weight 1.
    """
    service = services(request)
    body, query = await read_query(request, service, SEARCH_QUERY)
    found = await service.search.search(replace(query, model=body.model))
    return search_response(found, request.state.request_id)


COMPARE_QUERY = query_of(CompareRequest)


@router.post(
    "/compare",
    summary="Ask several models the same",
    openapi_extra=COMPARE_QUERY.described,
    responses=fails(404, 409, 424),
)
async def compare(request: Request) -> CompareResponse:
    """Find products with each of the models, and say how far their lists agree.

    Takes what a search takes, as JSON or multipart, with `models` in the place of `model`.
    """
    service = services(request)
    body, query = await read_query(request, service, COMPARE_QUERY)
    return _compare_response(await service.comparison.compare(query, body.models), request.state.request_id)


@router.get("/attributes", summary="What products can be filtered by")
async def attributes(request: Request) -> AttributesResponse:
    """Sum up the attributes of products that have images, as they were at most half a minute ago.

    At most 50 attributes and 50 values of each, from at most 2,000 products.
    """
    summary = await services(request).attributes.current()
    attributes = [_attribute(each) for each in summary.attributes]
    return AttributesResponse(products_read=summary.products_read, attributes=attributes)


def _compare_response(compared: Compared, request_id: str) -> CompareResponse:
    shown = {
        hit.product_id: found.products[hit.product_id]
        for found in compared.lists.values()
        for hit in found.hits
    }
    return CompareResponse(
        lists=[_model_results(model, found) for model, found in compared.lists.items()],
        agreements=[Agreement.model_validate(each, from_attributes=True) for each in compared.agreements],
        products={product_id: product_response(product) for product_id, product in shown.items()},
        skipped=compared.skipped,
        degraded=compared.degraded,
        request_id=request_id,
    )


def _model_results(model: str, found: SearchResult) -> ModelResults:
    results = [RankedProduct.model_validate(hit, from_attributes=True) for hit in found.hits]
    return ModelResults(model=model, results=results, **search_details(found))


def _attribute(attribute: products.Attribute) -> Attribute:
    values = sorted(attribute.values.items(), key=lambda each: (-each[1], str(each[0])))
    return Attribute(
        name=attribute.name,
        products=attribute.products,
        values=[
            AttributeValue(value=value, products=count) for value, count in values[: products.MAX_VALUES]
        ],
        more_values=len(values) > products.MAX_VALUES,
        minimum=attribute.minimum,
        maximum=attribute.maximum,
    )
