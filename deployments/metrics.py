"""All metrics that Vitrine exports; docs/operations.md holds them as a table."""

from deployments.metric_kinds import Counter, Gauge, Histogram, Metric

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
    "`encode` and `caption` as their callers wait for them; in an encoder `preprocess` (decode and resize, a "
    "free thread awaited), `queue` (of the input of a batch that waited longest) and `forward` (of a batch); "
    "`search`, `score` in Milvus; `lexical`; `fuse`; `hydrate` (products read from the catalog).",
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
    "Inputs that went through the model together; `input` is `image`, `text` or `caption`.",
    ("model", "input"),
    buckets=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0),
)
CACHE_HITS = Counter(
    "vitrine_embedding_cache_hits_total", "Inputs that were answered without the model.", ("model",)
)
CACHE_MISSES = Counter(
    "vitrine_embedding_cache_misses_total", "Inputs that the model had to embed.", ("model",)
)
CATALOG_PICTURES = Gauge("vitrine_catalog_pictures", "Pictures in the catalog, as last sampled.")
INDEXED_PICTURES = Gauge(
    "vitrine_indexed_pictures",
    "Pictures in the collection that the model serves, as last sampled.",
    ("model",),
)
LEDGER_GAP = Gauge(
    "vitrine_ledger_gap_pictures",
    "Pictures that the collection lacks and the repair or a build has yet to bring, as last sampled.",
    ("model",),
)
QUARANTINED = Gauge(
    "vitrine_quarantined_pictures", "Pictures that the model could not take, as last sampled.", ("model",)
)
INDEX_AGE = Gauge(
    "vitrine_index_age_seconds",
    "How long the picture that has waited longest for its place in the collection has done so, in seconds: "
    "how far the index lags behind the catalog; 0 when it lacks nothing.",
    ("model",),
)
SAMPLED_AT = Gauge(
    "vitrine_ledger_sampled_timestamp_seconds",
    "When the ledger was last sampled for the figures above, in seconds since 1970.",
    ("model",),
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
