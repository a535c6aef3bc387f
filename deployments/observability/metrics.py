"""All metrics that Vitrine exports through Ray, and their table in docs/operations.md.

Ray's objects are made at first use: only inside a replica do they learn which one it is. Serve adds the labels
`application`, `deployment` and `replica`, and every name gets the prefix `ray_`.

A search records a dozen values. In a replica that was idle that takes 0.12 ms in all, in a loop half.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ray.serve import metrics

logger = logging.getLogger(__name__)
_failed: set[str] = set()
"""Metrics whose failure is in the log."""


@dataclass(frozen=True)
class Metric:
    """A metric: its name with the unit, its meaning, and the labels of every value."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: ClassVar[str]

    def _record(self, method: str, value: float, labels: dict[str, str]) -> None:
        """Record a value; what is measured goes on without it where that fails, which is logged once."""
        try:
            getattr(self._exported, method)(value, labels)
        except Exception:
            if self.name not in _failed:
                _failed.add(self.name)
                logger.exception("%s cannot be recorded; this is logged once", self.name)

    @cached_property
    def _exported(self) -> Any:
        make, options = getattr(metrics, type(self).__name__), {}
        if isinstance(self, Histogram):
            options["boundaries"] = list(self.buckets)
        return make(self.name, description=self.help, tag_keys=self.labels, **options)


@dataclass(frozen=True)
class Counter(Metric):
    """A number that only grows as long as the replica lives."""

    kind: ClassVar[str] = "counter"

    def add(self, amount: float = 1.0, /, **labels: str) -> None:
        """Add an amount, which may be 0."""
        if amount > 0:
            self._record("inc", amount, labels)


@dataclass(frozen=True)
class Gauge(Metric):
    """A number that goes up and down."""

    kind: ClassVar[str] = "gauge"

    def set(self, value: float, /, **labels: str) -> None:
        """Set the value that is exported from now on."""
        self._record("set", value, labels)


@dataclass(frozen=True)
class Histogram(Metric):
    """A distribution of values. Ray rebuilds it from its buckets, so sums and means are estimates."""

    buckets: tuple[float, ...] = (1.0,)
    kind: ClassVar[str] = "histogram"

    def observe(self, value: float, /, **labels: str) -> None:
        """Add one value."""
        self._record("observe", value, labels)


SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

REQUESTS = Counter(
    "vitrine_requests_total",
    "Requests that were answered. `model` is what was asked for: an encoder, `ensemble`, `several`, or `none`.",
    ("route", "method", "status", "model"),
)
REQUEST_SECONDS = Histogram(
    "vitrine_request_seconds",
    "Time from a request's headers to the end of its answer, in seconds.",
    ("route", "model"),
    buckets=SECONDS,
)
STAGE_SECONDS = Histogram(
    "vitrine_stage_seconds",
    "Time of one stage of an answer, in seconds; its count is how often the stage ran. Stages: `ensemble`, "
    "`encode` and `caption` as their callers wait for them; in an encoder `preprocess` (decode and resize some "
    "images of a request, a free thread or process awaited), `queue` (of the input of a batch that waited "
    "longest) and `forward` (of a batch); `search`, `score` in Milvus; `keyword`; `fuse`; `hydrate` (products read "
    "from the catalog); `rerank` (the second stage).",
    ("stage", "model"),
    buckets=SECONDS,
)
ERRORS = Counter(
    "vitrine_errors_total",
    "Errors by their type, as answers name it, where they arose: in a stage, or in a `request` as a whole.",
    ("stage", "model", "type"),
)
BATCH_SIZE = Histogram(
    "vitrine_batch_size",
    "Inputs that went through the model together; `input` is `image`, `text`, `caption` or `match`.",
    ("model", "input"),
    buckets=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0),
)
CACHE_HITS = Counter(
    "vitrine_embedding_cache_hits_total", "Inputs that were answered without the model.", ("model",)
)
CACHE_MISSES = Counter(
    "vitrine_embedding_cache_misses_total", "Inputs that the model had to embed.", ("model",)
)
CATALOG_IMAGES = Gauge("vitrine_catalog_images", "Images in the catalog, as last sampled.")
INDEXED_IMAGES = Gauge(
    "vitrine_indexed_images",
    "Images in the collection that the model serves, as last sampled.",
    ("model",),
)
LEDGER_GAP = Gauge(
    "vitrine_ledger_gap_images",
    "Images that the collection lacks and the repair or a build has yet to bring, as last sampled.",
    ("model",),
)
QUARANTINED = Gauge(
    "vitrine_quarantined_images", "Images that the model could not take, as last sampled.", ("model",)
)
INDEX_AGE = Gauge(
    "vitrine_index_age_seconds",
    "How long the image that has waited longest for its place in the collection has done so, in seconds: "
    "how far the index lags behind the catalog; 0 when it lacks nothing.",
    ("model",),
)
SAMPLED_AT = Gauge(
    "vitrine_ledger_sampled_timestamp_seconds",
    "When the ledger was last sampled for the figures above, in seconds since 1970.",
    ("model",),
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


BEGIN = "<!-- metrics: generated by `make generate` -->"
END = "<!-- end of the metrics -->"


def table() -> str:
    """Render all metrics under the names that Prometheus sees."""
    rows = [
        f"| `ray_{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.help} |"
        for each in METRICS
    ]
    return "\n".join(["| metric | kind | labels | what |", "| --- | --- | --- | --- |", *rows])
