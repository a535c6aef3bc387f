"""What the service answers about products, searches and embeddings.

Fields that a newer service adds are kept and shown, so that a client need not be changed with it.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

IndexState = Literal["indexed", "pending", "failed"]


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Image(Answer):
    """A picture of a product; `url` is the path of its file on the service."""

    image_id: str
    url: str
    media_type: str
    width: int
    height: int
    bytes: int
    revision: int
    caption: str | None = None


class Product(Answer):
    """A product."""

    product_id: str
    title: str
    description: str
    attributes: dict[str, Any]
    images: list[Image]
    revision: int
    created_at: datetime
    updated_at: datetime


class IndexedIn(Answer):
    """Where a product stands with one model: the state of the whole, and of each picture."""

    state: IndexState
    images: dict[str, IndexState]


class Written(Answer):
    """A durable write; `index` says by model whether searches find the product already."""

    product: Product
    created: bool
    index: dict[str, IndexedIn]


class ModelUsed(Answer):
    """A model version that took part."""

    model: str
    fingerprint: str
    collection: str
    weight: float


class Facts(Answer):
    """How a list of results came about."""

    models_used: list[ModelUsed]
    lexical_weight: float
    skipped: dict[str, str]
    incomplete: dict[str, str]
    thresholds: dict[str, float]
    degraded: bool
    timings_ms: dict[str, float]


class Hit(Answer):
    """A found product, its score, and the picture that was nearest."""

    product_id: str
    score: float
    image_id: str
    product: Product


class Page(Facts):
    """A page of results, best first."""

    results: list[Hit]
    request_id: str


class Ranked(Answer):
    """A product's place in one list of a comparison."""

    product_id: str
    score: float
    image_id: str


class ModelList(Facts):
    """What one model found, best first."""

    model: str
    results: list[Ranked]


class Agreement(Answer):
    """How far two lists agree."""

    models: tuple[str, str]
    shared: int
    jaccard: float | None
    rank_correlation: float | None


class Comparison(Answer):
    """One list a model, side by side; `products` holds each found product once."""

    lists: list[ModelList]
    agreements: list[Agreement]
    products: dict[str, Product]
    skipped: dict[str, str]
    degraded: bool
    request_id: str


class Embedding(Answer):
    """A unit vector of `dimension` float32 values."""

    model: str
    fingerprint: str
    dimension: int
    embedding: list[float]
    timings_ms: dict[str, float]
    request_id: str


class Caption(Answer):
    """What a model says of a picture; `fingerprint` is that of its captions."""

    model: str
    fingerprint: str
    caption: str
    timings_ms: dict[str, float]
    request_id: str


class AttributeValue(Answer):
    """A value, and how many of the products that were read have it."""

    value: bool | str
    products: int


class Attribute(Answer):
    """An attribute: strings, true and false are in `values`, numbers between `minimum` and `maximum`."""

    name: str
    products: int
    values: list[AttributeValue]
    more_values: bool
    minimum: float | None
    maximum: float | None


class Attributes(Answer):
    """The attributes that products have, the most frequent first."""

    products_read: int
    attributes: list[Attribute]
