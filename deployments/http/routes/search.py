"""Routes of search: search, compare models, attributes to filter by."""

from dataclasses import replace

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from core.search import SearchResult
from deployments.http.dependencies import READ, services
from deployments.http.errors import fails
from deployments.http.inputs import query_of, read_query
from deployments.http.schemas import CompareBody, ListFacts, ProductView, SearchBody, SearchView
from deployments.services.compare import Compared
from deployments.services.products import MAX_VALUES, Attribute

router = APIRouter(prefix="/v1", tags=["search"], dependencies=[READ])
SEARCH_QUERY = query_of(SearchBody)


@router.post(
    "/search",
    summary="Search by image, words, products, or all of them",
    openapi_extra=SEARCH_QUERY.described,
    responses=fails(404, 409, 424),
)
async def search(request: Request) -> SearchView:
    """Find products.

    JSON, or multipart with the same JSON in the field `request` and image files in other fields. A
    file that no part of the query names as its `upload` joins the query with weight 1.
    """
    service = services(request)
    body, query = await read_query(request, service, SEARCH_QUERY)
    found = await service.search.search(replace(query, model=body.model))
    return SearchView.of(found, request.state.request_id)


COMPARE_QUERY = query_of(CompareBody)


class RankedView(BaseModel):
    """A product's place in one list; `products` of the answer holds the product."""

    product_id: str
    score: float
    image_id: str


class ListView(ListFacts):
    """What one model found, best first."""

    model: str
    results: list[RankedView]

    @classmethod
    def of(cls, model: str, found: SearchResult) -> "ListView":
        """Show a list."""
        results = [
            RankedView(product_id=hit.product_id, score=hit.score, image_id=hit.image_id)
            for hit in found.hits
        ]
        return cls(model=model, results=results, **cls.facts(found))


class AgreementView(BaseModel):
    """How far two of the lists agree."""

    models: tuple[str, str]
    shared: int = Field(description="Products that both lists hold.")
    jaccard: float | None = Field(
        description="Shared products by those of either list; null: both are empty."
    )
    rank_correlation: float | None = Field(
        description="Kendall's tau-b over the products of either list, where those that a list lacks share "
        "the place behind its last: 1 the same order, -1 the reverse; null where a list ranks nothing."
    )


class CompareView(BaseModel):
    """The lists side by side; each product stands once in `products`."""

    lists: list[ListView]
    agreements: list[AgreementView] = Field(description="One for each two lists, over the pages shown.")
    products: dict[str, ProductView]
    skipped: dict[str, str] = Field(description="Models without a list, and why.")
    degraded: bool = Field(description="True when a model that should have answered did not.")
    request_id: str

    @classmethod
    def of(cls, compared: Compared, request_id: str) -> "CompareView":
        """Show a comparison."""
        shown = {
            hit.product_id: found.products[hit.product_id]
            for found in compared.lists.values()
            for hit in found.hits
        }
        return cls(
            lists=[ListView.of(model, found) for model, found in compared.lists.items()],
            agreements=[
                AgreementView(
                    models=each.models,
                    shared=each.shared,
                    jaccard=each.jaccard,
                    rank_correlation=each.rank_correlation,
                )
                for each in compared.agreements
            ],
            products={product_id: ProductView.of(product) for product_id, product in shown.items()},
            skipped=compared.skipped,
            degraded=compared.degraded,
            request_id=request_id,
        )


@router.post(
    "/compare",
    summary="Ask several models the same",
    openapi_extra=COMPARE_QUERY.described,
    responses=fails(404, 409, 424),
)
async def compare(request: Request) -> CompareView:
    """Find products with each of the models, and say how far their lists agree.

    Takes what a search takes, as JSON or multipart, with `models` in the place of `model`.
    """
    service = services(request)
    body, query = await read_query(request, service, COMPARE_QUERY)
    return CompareView.of(await service.comparison.compare(query, body.models), request.state.request_id)


class ValueView(BaseModel):
    """A value, and how many of the products that were read have it."""

    value: bool | str
    products: int


class AttributeView(BaseModel):
    """An attribute. Strings, true and false stand in `values`; numbers lie between `minimum` and `maximum`."""

    name: str
    products: int
    values: list[ValueView] = Field(description="The most frequent first; elements of lists count each.")
    more_values: bool = Field(description="Whether there are further values.")
    minimum: float | None
    maximum: float | None

    @classmethod
    def of(cls, attribute: Attribute) -> "AttributeView":
        """Show an attribute."""
        shown = sorted(attribute.values.items(), key=lambda each: (-each[1], str(each[0])))[:MAX_VALUES]
        return cls(
            name=attribute.name,
            products=attribute.products,
            values=[ValueView(value=value, products=count) for value, count in shown],
            more_values=len(attribute.values) > MAX_VALUES,
            minimum=attribute.minimum,
            maximum=attribute.maximum,
        )


class AttributesView(BaseModel):
    """The attributes that products have, the most frequent first."""

    products_read: int = Field(
        description="Products that were read: all with images, or a share of a large catalog."
    )
    attributes: list[AttributeView]


@router.get("/attributes", summary="What products can be filtered by")
async def attributes(request: Request) -> AttributesView:
    """Sum up the attributes of products that have images, as they were at most half a minute ago.

    At most 50 attributes and 50 values of each, from at most 2,000 products.
    """
    summary = await services(request).attributes.current()
    views = [AttributeView.of(each) for each in summary.attributes]
    return AttributesView(products_read=summary.products_read, attributes=views)
