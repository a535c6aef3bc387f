"""What the service answers about itself: models, numbers, jobs and keys."""

from datetime import datetime
from typing import Any, Literal

from vitrine.answers import Answer

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]
Scope = Literal["read", "write", "admin"]


class Counts(Answer):
    """How far a collection has come; `failed` pictures are in quarantine."""

    pictures: int
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


class MissingPicture(Answer):
    """A picture that a collection lacks, or has at an earlier revision."""

    image_id: str
    product_id: str
    revision: int


class FailedPicture(MissingPicture):
    """A picture in quarantine, and why."""

    error: str


class Gaps(Answer):
    """The first gaps of a collection, oldest revision first."""

    collection: str
    missing: list[MissingPicture]
    failed: list[FailedPicture]


class Stats(Answer):
    """Numbers of the whole service; `captions` has those models that write some."""

    products: int
    pictures: int
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
