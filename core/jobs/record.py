"""A job: what was asked for, and how far it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]
"""`interrupted`: the process gave no sign of life for too long; the same job, asked for anew, goes on."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is; `eta_s` is the expected time to its end in seconds, None while unknown."""

    stage: str = ""
    total: int = 0
    done: int = 0
    failed: int = 0
    images_per_s: float | None = None
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the catalog's database knows it; `claim` names what no other job may work on meanwhile."""

    job_id: str
    kind: str
    args: Mapping[str, Any]
    state: JobState
    progress: Progress
    claim: str | None
    result: Mapping[str, Any] | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime
    finished_at: datetime | None
