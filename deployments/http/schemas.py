"""Request and response schemas that several routes share."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from core.search import SearchResult
from core.types import Hit, Product, ProductImage, WholeNumber


class Body(BaseModel):
    """A request body: unknown fields are refused, and values of another type than the field's."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("words", "give words: this text is blank")
    return text


Words = Annotated[
    str,
    Field(min_length=1, max_length=2000, json_schema_extra={"pattern": r"\S"}),
    AfterValidator(_refuse_blank),
]


class ProductBody(Body):
    """A product to store."""

    title: str = ""
    description: str = ""
    attributes: dict[str, Any] = {}
    images: list[str] | None = Field(
        None,
        description="Images as base64, data URIs or http(s) URLs, in order; "
        "left out: keep those the product has.",
    )


class EmbedBody(Body):
    """One image or one text to embed."""

    text: Words | None = None
    image: str | None = Field(None, min_length=1, description="Base64 or a data URI.")
    image_url: str | None = Field(None, min_length=1, description="Where the image is: http or https.")


_ROUNDING = 1e-6
"""How far the rounding of a caller's pixels may carry a box beyond the edge."""


class TextPart(Body):
    """Words."""

    type: Literal["text"]
    text: Words
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class BoxBody(Body):
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


class ImagePart(Body):
    """An image: base64 or a data URI, or in a multipart request the name of the form field with the file."""

    type: Literal["image"]
    image: str | None = Field(None, min_length=1, description="Base64 or a data URI.")
    upload: str | None = Field(None, min_length=1, description="Name of a form field that holds a file.")
    box: BoxBody | None = Field(None, description="The part of the image that is meant; left out: all of it.")
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class ImageUrlPart(Body):
    """An image behind a URL."""

    type: Literal["image_url"]
    image_url: str = Field(min_length=1, description="Where the image is: http or https.")
    box: BoxBody | None = Field(None, description="The part of the image that is meant; left out: all of it.")
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class ProductPart(Body):
    """A product of the catalog, by all its images."""

    type: Literal["product_id"]
    product_id: str = Field(min_length=1)
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class ProductImagePart(Body):
    """One image of a product of the catalog."""

    type: Literal["image_id"]
    image_id: str = Field(min_length=1)
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


def _kind_of_part(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f":{kind}"


def _kind_of_query(value: Any) -> str:
    return ":words" if isinstance(value, str) else ":parts"


# Tags that begin with a colon cannot be taken for field names when an error's location is shown.
Part = Annotated[
    Annotated[TextPart, Tag(":text")]
    | Annotated[ImagePart, Tag(":image")]
    | Annotated[ImageUrlPart, Tag(":image_url")]
    | Annotated[ProductPart, Tag(":product_id")]
    | Annotated[ProductImagePart, Tag(":image_id")],
    Discriminator(
        _kind_of_part,
        custom_error_type="part",
        custom_error_message="a part is an object with `type`: text, image, image_url, product_id or image_id",
    ),
]
Parts = Annotated[
    Annotated[Words, Tag(":words")] | Annotated[list[Part], Tag(":parts")], Discriminator(_kind_of_query)
]


SCORE_THRESHOLD = "Smallest score of a result: a cosine similarity, so not for the ensemble."
MAX_FALSE_MATCH_RATE = (
    "Leaves out what is not near enough: a query that is as strange to the catalog as a product without "
    "its nearest hundredth is answered with anything at most this often. In the ensemble, members with more "
    "than half of the weight have to agree."
)


class QueryBody(Body):
    """What to look for, and which page of it."""

    query: Parts = Field([], description="Words, or weighted parts.")
    weights: dict[str, Annotated[FiniteFloat, Field(ge=0)]] | None = Field(
        None,
        description="Ensemble only: a member's weight in place of its configured one; members left out keep "
        "theirs, and 0 leaves one out.",
    )
    fusion: Literal["rrf", "weighted"] | None = Field(None, description="Ensemble only: how lists are fused.")
    keyword_weight: FiniteFloat | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the ranking by the query's own words, fused with the one by vectors: 0 vectors "
        "alone, 1 words alone. Left out: as configured for words to the ensemble, else 0.",
    )
    score_threshold: FiniteFloat | None = Field(None, ge=-1, le=1, description=SCORE_THRESHOLD)
    max_false_match_rate: FiniteFloat | None = Field(None, gt=0, lt=1, description=MAX_FALSE_MATCH_RATE)
    limit: WholeNumber = Field(10, ge=1, description="Distinct products to return.")
    offset: WholeNumber = Field(0, ge=0, description="Products to skip.")
    filter: dict[str, Any] | None = Field(None, description="Conditions on attributes.")
    exclude: list[str] = Field([], max_length=1000, description="Products to leave out.")
    include_query_products: bool = Field(
        False, description="Whether products that the query names, or whose image it names, may be found."
    )


class SearchBody(QueryBody):
    """A search."""

    model: str = Field("ensemble", description="An encoder's name, or `ensemble`.")


class CompareBody(QueryBody):
    """A search with several models side by side."""

    models: list[str] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Encoders' names and `ensemble`; left out: every encoder and the ensemble.",
    )


class ImageView(BaseModel):
    """An image of a product."""

    image_id: str
    url: str
    media_type: str
    width: int
    height: int
    bytes: int
    revision: int
    caption: str | None = Field(description="What a model has written about the image, if any has.")

    @classmethod
    def of(cls, image: ProductImage) -> "ImageView":
        """Show an image."""
        return cls(
            image_id=image.image_id,
            url=f"/v1/images/{image.image_id}",
            media_type=image.media_type,
            width=image.width,
            height=image.height,
            bytes=image.bytes,
            revision=image.revision,
            caption=image.caption,
        )


class ProductView(BaseModel):
    """A product."""

    product_id: str
    title: str
    description: str
    attributes: dict[str, Any]
    images: list[ImageView]
    revision: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, product: Product) -> "ProductView":
        """Show a product."""
        return cls(
            product_id=product.product_id,
            title=product.title,
            description=product.description,
            attributes=dict(product.attributes),
            images=[ImageView.of(image) for image in product.images],
            revision=product.revision,
            created_at=product.created_at,
            updated_at=product.updated_at,
        )


class ModelIndex(BaseModel):
    """Where a product stands with one model: the state of the whole, and of each image."""

    state: Literal["indexed", "pending", "failed"]
    images: dict[str, Literal["indexed", "pending", "failed"]]


class WrittenView(BaseModel):
    """The answer to a durable write."""

    product: ProductView
    created: bool
    index: dict[str, ModelIndex]


class ModelUsed(BaseModel):
    """A model version that took part."""

    model: str
    fingerprint: str
    collection: str
    weight: float


class ResultView(BaseModel):
    """A found product with its score and the image that was nearest."""

    product_id: str
    score: float
    image_id: str
    product: ProductView

    @classmethod
    def of(cls, hit: Hit, product: Product) -> "ResultView":
        """Show a hit."""
        view = ProductView.of(product)
        return cls(product_id=hit.product_id, score=hit.score, image_id=hit.image_id, product=view)


class ListFacts(BaseModel):
    """How a list of results came about."""

    models_used: list[ModelUsed]
    keyword_weight: float = Field(
        description="Share of the ranking by words: 0 when it took no part, 1 when no model did."
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

    @staticmethod
    def facts(found: SearchResult) -> dict[str, Any]:
        """The values of these fields."""
        return {
            "models_used": [
                ModelUsed(
                    model=info.name,
                    fingerprint=info.fingerprint,
                    collection=info.collection,
                    weight=found.weights.get(info.name, 0.0),
                )
                for info in found.versions
            ],
            "keyword_weight": found.keyword_weight,
            "skipped": found.skipped,
            "incomplete": found.incomplete,
            "thresholds": found.thresholds,
            "degraded": found.degraded,
            "timings_ms": {stage: round(ms, 3) for stage, ms in found.timings_ms.items()},
        }


class SearchView(ListFacts):
    """A page of results, and which models and versions made it."""

    results: list[ResultView]
    request_id: str

    @classmethod
    def of(cls, found: SearchResult, request_id: str) -> "SearchView":
        """Show a page."""
        results = [ResultView.of(hit, found.products[hit.product_id]) for hit in found.hits]
        return cls(results=results, request_id=request_id, **cls.facts(found))


class EmbeddingView(BaseModel):
    """One embedding: a unit vector of `dimension` float32 values."""

    model: str
    fingerprint: str
    dimension: int
    embedding: list[float]
    timings_ms: dict[str, float]
    request_id: str
