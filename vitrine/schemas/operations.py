"""Schemas of models, status, jobs and API keys."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from vitrine.schemas.base import RequestModel, ResponseModel, WholeNumber

JobState = Literal["queued", "running", "succeeded", "failed", "canceled", "interrupted"]
Scope = Literal["read", "write", "admin"]


class IndexCounts(ResponseModel):
    """The number of images in a collection; `failed` images are in quarantine."""

    images: int
    indexed: int
    failed: int
    missing: int


class CaptionCounts(ResponseModel):
    """The number of images that a model has captioned; `failed` images are in quarantine."""

    images: int
    captioned: int
    failed: int
    missing: int


class ModelVersion(ResponseModel):
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
    counts: IndexCounts


class Model(ResponseModel):
    """A configured model: the version that serves, or the problem it has."""

    model: str
    captions: bool | None = Field(
        description="Whether it writes captions; null where that is not known, of a model that does not answer or "
        "is scaled to zero."
    )
    reranks: bool | None = Field(
        None, description="Whether its matching head can re-rank searches with text; null as `captions`."
    )
    serving: ModelVersion | None
    problem: str | None


class StatsResponse(ResponseModel):
    """Numbers of the whole service."""

    products: int
    images: int
    models: dict[str, IndexCounts | None]
    captions: dict[str, CaptionCounts] = Field(description="By those models that write captions.")


class ReadyResponse(ResponseModel):
    """The readiness of the service, and the problems that stand in the way."""

    ready: bool
    problems: dict[str, str]
    timings_ms: dict[str, float]


class MissingImage(ResponseModel):
    """An image that a collection lacks, or has at an earlier revision."""

    image_id: str
    product_id: str
    revision: int


class FailedImage(MissingImage):
    """An image that the model could not take, and why."""

    error: str


class GapsResponse(ResponseModel):
    """The first gaps of a collection, oldest revision first."""

    collection: str
    missing: list[MissingImage]
    failed: list[FailedImage] = Field(
        description="Images in quarantine: they are tried again when they change, and by "
        "`vitrine verify --repair`."
    )


class SubmitJobRequest(RequestModel):
    """A job to do."""

    kind: str = Field(max_length=32, description="What to do, such as build or sample.")
    args: dict[str, Any] = Field({}, description="What the kind takes, such as `model`.")


class JobProgress(ResponseModel):
    """The progress of a job; unknown numbers are null."""

    stage: str
    total: int
    done: int
    failed: int
    images_per_s: float | None
    eta_s: float | None


class Job(ResponseModel):
    """A job. `interrupted`: its process died; submitted again, the work goes on where it was."""

    job_id: str
    kind: str
    args: dict[str, Any]
    state: JobState
    progress: JobProgress
    result: dict[str, Any] | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        """True once the job has ended."""
        return self.state not in ("queued", "running")


class RowError(ResponseModel):
    """A broken row of an import's source; rows count from 1."""

    row: int
    product_id: str | None
    error: str


class CreateKeyRequest(RequestModel):
    """A key to make."""

    name: str = Field(min_length=1, max_length=100, description="Whose key it is, or what it is for.")
    scopes: list[Scope] = Field(min_length=1, description="admin holds write, write holds read.")
    requests_per_s: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None, description="Its rate limit; left out: the configured one."
    )
    burst: Annotated[WholeNumber, Field(gt=0, le=1_000_000)] | None = Field(
        None, description="Requests that it may send at once; left out: as configured."
    )


class ApiKey(ResponseModel):
    """An API key, without the key itself."""

    key_id: str
    name: str
    scopes: list[Scope]
    requests_per_s: float | None
    burst: int | None
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="Up to a minute old.")


class CreateKeyResponse(ResponseModel):
    """A new key; `key` is what to send, and is never shown again."""

    key: str
    details: ApiKey
