"""The JSON of requests and answers."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, Tag

from core.types import Hit, Picture, Product
from deployments.searches import Found


class Body(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


Words = Annotated[str, Field(min_length=1, max_length=2000)]


class TextPart(Body):
    """Words."""

    type: Literal["text"]
    text: Words
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class ImagePart(Body):
    """A picture: base64 or a data URI, or in a multipart request the name of the form field with the file."""

    type: Literal["image"]
    image: str | None = Field(None, min_length=1, description="Base64 or a data URI.")
    upload: str | None = Field(None, min_length=1, description="Name of a form field that holds a file.")
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class ProductPart(Body):
    """A product of the catalog, by all its pictures."""

    type: Literal["product_id"]
    product_id: str = Field(min_length=1)
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
    | Annotated[ProductPart, Tag(":product_id")],
    Discriminator(
        _kind_of_part,
        custom_error_type="part",
        custom_error_message="a part is an object with `type`: text, image or product_id",
    ),
]
Parts = Annotated[
    Annotated[Words, Tag(":words")] | Annotated[list[Part], Tag(":parts")], Discriminator(_kind_of_query)
]


class SearchBody(Body):
    """A search."""

    query: Parts = Field([], description="Words, or weighted parts.")
    model: str = Field("ensemble", description="An encoder's name, or `ensemble`.")
    weights: dict[str, Annotated[FiniteFloat, Field(ge=0)]] | None = Field(
        None, description="Ensemble only: weights of members, replacing the configured ones."
    )
    fusion: Literal["rrf", "weighted"] | None = Field(None, description="Ensemble only: how lists are fused.")
    limit: int = Field(10, ge=1, description="Distinct products to return.")
    offset: int = Field(0, ge=0, description="Products to skip.")
    filter: dict[str, Any] | None = Field(None, description="Conditions on attributes.")
    exclude: list[str] = Field([], max_length=1000, description="Products to leave out.")


class ProductBody(Body):
    """A product to store."""

    title: str = ""
    description: str = ""
    attributes: dict[str, Any] = {}
    images: list[str] | None = Field(
        None, description="Pictures as base64 or data URIs, in order; left out: keep those the product has."
    )


class EmbedBody(Body):
    """One picture or one text to embed."""

    text: Words | None = None
    image: str | None = Field(None, min_length=1, description="Base64 or a data URI.")


class PictureView(BaseModel):
    """A picture of a product."""

    image_id: str
    url: str
    media_type: str
    width: int
    height: int
    bytes: int
    revision: int

    @classmethod
    def of(cls, picture: Picture) -> "PictureView":
        """Show a picture."""
        return cls(
            image_id=picture.image_id,
            url=f"/v1/images/{picture.image_id}",
            media_type=picture.media_type,
            width=picture.width,
            height=picture.height,
            bytes=picture.bytes,
            revision=picture.revision,
        )


class ProductView(BaseModel):
    """A product."""

    product_id: str
    title: str
    description: str
    attributes: dict[str, Any]
    images: list[PictureView]
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
            images=[PictureView.of(picture) for picture in product.pictures],
            revision=product.revision,
            created_at=product.created_at,
            updated_at=product.updated_at,
        )


class ModelIndex(BaseModel):
    """Where a product stands with one model: the state of the whole, and of each picture."""

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
    """A found product with its score and the picture that was nearest."""

    product_id: str
    score: float
    image_id: str
    product: ProductView

    @classmethod
    def of(cls, hit: Hit, product: Product) -> "ResultView":
        """Show a hit."""
        view = ProductView.of(product)
        return cls(product_id=hit.product_id, score=hit.score, image_id=hit.image_id, product=view)


class SearchView(BaseModel):
    """A page of results, and which models and versions made it."""

    results: list[ResultView]
    models_used: list[ModelUsed]
    skipped: dict[str, str] = Field(description="Members of the ensemble that did not take part, and why.")
    degraded: bool = Field(description="True when a member that should have answered did not.")
    timings_ms: dict[str, float]
    request_id: str

    @classmethod
    def of(cls, found: Found, request_id: str) -> "SearchView":
        """Show a page."""
        return cls(
            results=[ResultView.of(hit, product) for hit, product in found.results],
            models_used=[
                ModelUsed(
                    model=info.name,
                    fingerprint=info.fingerprint,
                    collection=info.collection,
                    weight=found.weights.get(info.name, 0.0),
                )
                for info in found.infos
            ],
            skipped=found.skipped,
            degraded=found.degraded,
            timings_ms={stage: round(ms, 3) for stage, ms in found.timings_ms.items()},
            request_id=request_id,
        )


class EmbeddingView(BaseModel):
    """One embedding: a unit vector of `dimension` float32 values."""

    model: str
    fingerprint: str
    dimension: int
    embedding: list[float]
    timings_ms: dict[str, float]
    request_id: str
