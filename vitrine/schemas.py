"""Schemas of what the service answers; fields that a newer service adds are kept.

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
    """An image of a product; `url` is the path of its file on the service."""

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
    """Where a product stands with one model: the state of the whole, and of each image."""

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
    keyword_weight: float
    skipped: dict[str, str]
    incomplete: dict[str, str]
    thresholds: dict[str, float]
    degraded: bool
    timings_ms: dict[str, float]


class Hit(Answer):
    """A found product, its score, and the image that was nearest."""

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
    """What a model says of an image; `fingerprint` is that of its captions."""

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


class EmbeddingItem(Answer):
    """A unit vector, and the place of its input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float]


class FailedItem(Answer):
    """An input that could not be embedded: `error` has the type, the message and the field."""

    object: Literal["embedding"]
    index: int
    embedding: None
    error: dict[str, Any]


class Usage(Answer):
    """OpenAI's count of tokens, which the service leaves at 0."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Answer):
    """One item for each input, in their order, all by one model version."""

    object: Literal["list"]
    data: list[EmbeddingItem | FailedItem]
    model: str
    fingerprint: str
    usage: Usage
    id: str
    created: int


JobState = Literal["queued", "running", "succeeded", "failed", "canceled", "interrupted"]
Scope = Literal["read", "write", "admin"]


class Counts(Answer):
    """How far a collection has come; `failed` images are in quarantine."""

    images: int
    indexed: int
    failed: int
    missing: int


class Version(Answer):
    """A model version and its collection."""

    model: str
    family: str
    checkpoint: str
    fingerprint: str
    collection: str
    dimension: int
    modalities: list[str]
    precision: str
    device: str
    live: bool
    counts: Counts


class Model(Answer):
    """A configured model: the version that serves, or the problem it has."""

    model: str
    captions: bool
    serving: Version | None
    problem: str | None


class MissingImage(Answer):
    """An image that a collection lacks, or has at an earlier revision."""

    image_id: str
    product_id: str
    revision: int


class FailedImage(MissingImage):
    """An image in quarantine, and why."""

    error: str


class Gaps(Answer):
    """The first gaps of a collection, oldest revision first."""

    collection: str
    missing: list[MissingImage]
    failed: list[FailedImage]


class Stats(Answer):
    """Numbers of the whole service; `captions` has those models that write some."""

    products: int
    images: int
    models: dict[str, Counts | None]
    captions: dict[str, Any]


class Ready(Answer):
    """Whether the service is ready, and what stands in the way."""

    ready: bool
    problems: dict[str, str]
    timings_ms: dict[str, float]


class Progress(Answer):
    """How far a job is; unknown numbers are None."""

    stage: str
    total: int
    done: int
    failed: int
    images_per_s: float | None
    eta_s: float | None


class Job(Answer):
    """A job. `interrupted`: its process died; submitted again, the work goes on where it was."""

    job_id: str
    kind: str
    args: dict[str, Any]
    state: JobState
    progress: Progress
    result: dict[str, Any] | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether it goes on no more."""
        return self.state not in ("queued", "running")


class RowError(Answer):
    """What was wrong with a row of an import's source; rows count from 1."""

    row: int
    product_id: str | None
    error: str


class Key(Answer):
    """An API key, without the key itself."""

    key_id: str
    name: str
    scopes: list[Scope]
    requests_per_s: float | None
    burst: int | None
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKey(Answer):
    """A new key; `key` is what to send, and is never shown again."""

    key: str
    details: Key
