"""One query on several models, side by side."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from deployments.api.answers import ListFacts, ProductView
from deployments.api.fails import fails
from deployments.api.queries import query_of, read_query
from deployments.api.query_bodies import CompareBody
from deployments.comparison import Compared
from deployments.scopes import READ
from deployments.search_request import Found
from deployments.services import services

router = APIRouter(prefix="/v1", tags=["search"], dependencies=[READ])
QUERY = query_of(CompareBody)


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
    def of(cls, model: str, found: Found) -> "ListView":
        """Show a list."""
        results = [
            RankedView(product_id=hit.product_id, score=hit.score, image_id=hit.image_id)
            for hit, _ in found.results
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
        products = {
            product.product_id: product for found in compared.lists.values() for _, product in found.results
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
            products={product_id: ProductView.of(product) for product_id, product in products.items()},
            skipped=compared.skipped,
            degraded=compared.degraded,
            request_id=request_id,
        )


@router.post(
    "/compare",
    summary="Ask several models the same",
    openapi_extra=QUERY.described,
    responses=fails(404, 409, 424),
)
async def compare(request: Request) -> CompareView:
    """Find products with each of the models, and say how far their lists agree.

    Takes what a search takes, as JSON or multipart, with `models` in the place of `model`.
    """
    service = services(request)
    body, query = await read_query(request, service, QUERY)
    return CompareView.of(await service.comparison.compare(query, body.models), request.state.request_id)
