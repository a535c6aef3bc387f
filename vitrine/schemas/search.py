"""Schemas of searches and comparisons."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, FiniteFloat, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from vitrine.schemas.base import Base64Image, ImageUrl, RequestModel, ResponseModel, Text, WholeNumber
from vitrine.schemas.products import Product

Fusion = Literal["rrf", "weighted"]
Weight = Annotated[FiniteFloat, Field(description="Negative pushes away.")]


class Box(RequestModel):
    """A part of an image as a viewer shows it, in shares of its width and height, from the top left."""

    x: float = Field(ge=0, lt=1, description="Left edge.")
    y: float = Field(ge=0, lt=1, description="Upper edge.")
    width: float = Field(gt=0, le=1)
    height: float = Field(gt=0, le=1)

    @field_validator("width", "height")
    @classmethod
    def _end_within_the_image(cls, length: float, info: ValidationInfo) -> float:
        edge = "x" if info.field_name == "width" else "y"
        start: float = info.data.get(edge, 0.0)
        if start + length > 1 + _ROUNDING:
            raise PydanticCustomError(
                "box", f"the box leaves the image: {edge} + {info.field_name} exceeds 1"
            )
        return min(length, 1 - start)


_ROUNDING = 1e-6
"""The excess beyond an edge that comes from rounding a caller's pixels."""
_WHOLE_IMAGE = "The part of the image that is meant; left out: all of it."


class TextPart(RequestModel):
    """A text."""

    type: Literal["text"]
    text: Text
    weight: Weight = 1.0


class ImagePart(RequestModel):
    """An image: base64 or a data URI, or in a multipart request the name of the form field with the file."""

    type: Literal["image"]
    image: Base64Image | None = None
    upload: str | None = Field(None, min_length=1, description="Name of a form field that holds a file.")
    box: Box | None = Field(None, description=_WHOLE_IMAGE)
    weight: Weight = 1.0


class ImageUrlPart(RequestModel):
    """An image behind a URL."""

    type: Literal["image_url"]
    image_url: ImageUrl
    box: Box | None = Field(None, description=_WHOLE_IMAGE)
    weight: Weight = 1.0


class ProductPart(RequestModel):
    """A product of the catalog, by all its images."""

    type: Literal["product_id"]
    product_id: str = Field(min_length=1)
    weight: Weight = 1.0


class ProductImagePart(RequestModel):
    """One image of a product of the catalog."""

    type: Literal["image_id"]
    image_id: str = Field(min_length=1)
    weight: Weight = 1.0


def _part_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f":{kind}"


def _query_tag(value: Any) -> str:
    return ":text" if isinstance(value, str) else ":parts"


# Tags begin with a colon, so that an error's location tells them from field names.
Part = Annotated[
    Annotated[TextPart, Tag(":text")]
    | Annotated[ImagePart, Tag(":image")]
    | Annotated[ImageUrlPart, Tag(":image_url")]
    | Annotated[ProductPart, Tag(":product_id")]
    | Annotated[ProductImagePart, Tag(":image_id")],
    Discriminator(
        _part_tag,
        custom_error_type="part",
        custom_error_message="a part is an object with `type`: text, image, image_url, product_id or image_id",
    ),
]
Query = Annotated[
    Annotated[Text, Tag(":text")] | Annotated[list[Part], Tag(":parts")], Discriminator(_query_tag)
]

SCORE_THRESHOLD = "Smallest score of a result: a cosine similarity, so not for the ensemble."
MAX_FALSE_MATCH_RATE = (
    "Leaves out products that are not similar enough. Of the queries without a match in the catalog, at most "
    "this share get any result. In the ensemble, members with more than half of the weight must agree."
)


MAX_RERANK_DEPTH = 500


class Rerank(RequestModel):
    """A second stage: a model with a matching head orders the first products by how well image and text match."""

    model: str = Field(min_length=1, description="An encoder with a matching head: a BLIP-2 for retrieval.")
    depth: WholeNumber = Field(
        50, ge=1, le=MAX_RERANK_DEPTH, description="Products of the first stage that are re-ranked."
    )


class QueryRequest(RequestModel):
    """A query and its options, as a search and a comparison take them."""

    query: Query = Field([], description="A text, or weighted parts.")
    weights: dict[str, Annotated[FiniteFloat, Field(ge=0)]] | None = Field(
        None,
        description="Ensemble only: a member's weight in place of its configured one; members left out keep "
        "theirs, and 0 leaves one out.",
    )
    fusion: Fusion | None = Field(None, description="Ensemble only: how lists are fused.")
    keyword_weight: FiniteFloat | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the keyword search in the ranking: 0 vectors alone, 1 keywords alone. Left out: "
        "as configured for a text to the ensemble, else 0.",
    )
    score_threshold: FiniteFloat | None = Field(None, ge=-1, le=1, description=SCORE_THRESHOLD)
    max_false_match_rate: FiniteFloat | None = Field(None, gt=0, lt=1, description=MAX_FALSE_MATCH_RATE)
    rerank: Rerank | None = Field(
        None, description="Re-ranks the first products by the texts of the query, which needs one."
    )
    limit: WholeNumber = Field(10, ge=1, description="Distinct products to return.")
    offset: WholeNumber = Field(0, ge=0, description="Products to skip.")
    filter: dict[str, Any] | None = Field(None, description="Conditions on attributes.")
    exclude: list[str] = Field([], max_length=1000, description="Products to leave out.")
    include_query_products: bool = Field(
        False, description="Whether products that the query names, or whose image it names, may be found."
    )


class SearchRequest(QueryRequest):
    """A search."""

    model: str = Field("ensemble", description="An encoder's name, or `ensemble`.")


class CompareRequest(QueryRequest):
    """A search with several models side by side."""

    models: list[str] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Encoders' names and `ensemble`; left out: every encoder and the ensemble.",
    )


class ModelUsed(ResponseModel):
    """A model version that took part, and its weight."""

    model: str
    fingerprint: str
    collection: str
    weight: float


class Reranked(ResponseModel):
    """What the second stage did."""

    model: str
    fingerprint: str | None = Field(
        description="Version of what makes the scores; null where nothing was scored."
    )
    depth: int
    reranked: int = Field(description="Products of the first `depth` that were scored.")
    skipped: dict[str, int] = Field(
        description="Products of the first `depth` that kept their place, by the reason."
    )


class SearchDetails(ResponseModel):
    """The models behind a list of results, those that are missing, and the time of each stage."""

    models_used: list[ModelUsed]
    keyword_weight: float = Field(
        description="Share of the keyword search: 0 when it took no part, 1 when no model did."
    )
    skipped: dict[str, str] = Field(description="Models, or `keyword`, that did not take part, and why.")
    incomplete: dict[str, str] = Field(
        description="Members that took part without their scores of some candidates, and why."
    )
    thresholds: dict[str, float] = Field(
        description="Smallest cosine that each model called a match; empty when no threshold was asked for."
    )
    degraded: bool = Field(
        description="True when a member that should have answered did not, or not in full."
    )
    timings_ms: dict[str, float]
    rerank: Reranked | None = Field(None, description="The second stage; null where none was asked for.")


RerankScore = Annotated[
    float | None,
    Field(description="Score of the second stage, which orders those that have one; null: not re-ranked."),
]


class SearchHit(ResponseModel):
    """A found product, its score, and its image nearest to the query."""

    product_id: str
    score: float
    image_id: str
    rerank_score: RerankScore = None
    product: Product


class SearchResponse(SearchDetails):
    """A page of results, best first."""

    results: list[SearchHit]
    request_id: str


class RankedProduct(ResponseModel):
    """A product's place in one list; `products` of the response holds the product."""

    product_id: str
    score: float
    image_id: str
    rerank_score: RerankScore = None


class ModelResults(SearchDetails):
    """The results of one model, best first."""

    model: str
    results: list[RankedProduct]


class Agreement(ResponseModel):
    """Measures of how far two lists agree."""

    models: tuple[str, str]
    shared: int = Field(description="Products that both lists hold.")
    jaccard: float | None = Field(
        description="Shared products by those of either list; null: both are empty."
    )
    rank_correlation: float | None = Field(
        description="Kendall's tau-b over the products of either list, where those that a list lacks share "
        "the place behind its last: 1 the same order, -1 the reverse; null where a list ranks nothing."
    )


class CompareResponse(ResponseModel):
    """The lists side by side; each product stands once in `products`."""

    lists: list[ModelResults]
    agreements: list[Agreement] = Field(description="One for each two lists, over the pages shown.")
    products: dict[str, Product]
    skipped: dict[str, str] = Field(description="Models without a list, and why.")
    degraded: bool = Field(description="True when a model that should have answered did not.")
    request_id: str
