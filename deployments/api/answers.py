"""The JSON of answers."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from core.types import Hit, Picture, Product
from deployments.search_request import Found


class PictureView(BaseModel):
    """A picture of a product."""

    image_id: str
    url: str
    media_type: str
    width: int
    height: int
    bytes: int
    revision: int
    caption: str | None = Field(description="What a model has written about the picture, if any has.")

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
            caption=picture.caption,
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


class ListFacts(BaseModel):
    """How a list of results came about."""

    models_used: list[ModelUsed]
    lexical_weight: float = Field(
        description="Share of the ranking by words: 0 when it took no part, 1 when no model did."
    )
    skipped: dict[str, str] = Field(description="Models, or `lexical`, that did not take part, and why.")
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
    def facts(found: Found) -> dict[str, Any]:
        """The values of these fields."""
        return {
            "models_used": [
                ModelUsed(
                    model=info.name,
                    fingerprint=info.fingerprint,
                    collection=info.collection,
                    weight=found.weights.get(info.name, 0.0),
                )
                for info in found.infos
            ],
            "lexical_weight": found.lexical_weight,
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
    def of(cls, found: Found, request_id: str) -> "SearchView":
        """Show a page."""
        results = [ResultView.of(hit, product) for hit, product in found.results]
        return cls(results=results, request_id=request_id, **cls.facts(found))


class EmbeddingView(BaseModel):
    """One embedding: a unit vector of `dimension` float32 values."""

    model: str
    fingerprint: str
    dimension: int
    embedding: list[float]
    timings_ms: dict[str, float]
    request_id: str
