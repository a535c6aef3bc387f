"""Configuration of bulk jobs: resources and sizes, evaluation, and the quality gate."""

from typing import Literal, Self

from pydantic import Field, model_validator

from core.config import Config


class FileImportConfig(Config):
    """Builds write files that Milvus imports by itself, in place of upserts; needs a Milvus server."""

    url: str = Field(
        min_length=1,
        description="Folder of the files in the object store that Milvus reads, as fsspec names it: "
        "`s3://bucket/vitrine-import`.",
    )
    milvus_path: str = Field(
        min_length=1,
        description="The same folder as Milvus names it: its path within Milvus's own bucket, `vitrine-import`.",
    )
    file_images: int = Field(
        20_000,
        ge=1,
        description="Images of one file, and of one unit of work: what is lost when a copy of the model is "
        "killed.",
    )
    files_at_once: int = Field(8, ge=1, le=256, description="Files that Milvus imports at once.")
    wait_s: float = Field(
        3600.0, gt=0, description="How long Milvus may take for the files of one round, in seconds."
    )


class BulkConfig(Config):
    """Resources and sizes of a bulk job; what is not set follows the encoder's own deployment."""

    min_actors: int = Field(1, ge=1, description="Copies of the model that a job starts with.")
    max_actors: int = Field(1, ge=1, description="Most copies of the model that a job grows to.")
    cpus_per_actor: float | None = Field(
        None, ge=0, description="CPUs of one copy; by default those of the encoder's replica."
    )
    gpus_per_actor: float | None = Field(
        None, ge=0, description="GPUs of one copy; by default those of the encoder's replica."
    )
    batch_size: int | None = Field(
        None, ge=1, le=1024, description="Images of one write; by default the encoder's max_batch_size."
    )
    batches_in_flight: int = Field(
        3,
        ge=1,
        le=64,
        description="Batches of one copy under way at once: one is decoded while another is in the model and "
        "a third is written. More hide a slow store, cost memory, and are lost when the process is killed.",
    )
    shard_images: int = Field(
        512, ge=1, description="Images of one unit of work: what a copy takes up at a time."
    )
    gap_threshold: int = Field(
        100,
        ge=0,
        description="A build ends when at most that many images are missing, which live traffic has "
        "added since; it goes round again while more are.",
    )
    patience_s: float = Field(
        600.0, gt=0, description="How long a build waits for a store that is away, in seconds."
    )

    file_import: FileImportConfig | None = Field(
        None,
        description="Have Milvus import files that builds write; by default builds upsert. For large "
        "collections that nobody searches yet.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_actors > self.max_actors:
            raise ValueError(f"min_actors {self.min_actors} is above max_actors {self.max_actors}")
        return self


METRIC = r"^((precision|recall|ndcg)@[1-9][0-9]{0,2}|map|mrr)$"
"""Names of metrics; `map` and `mrr` look at the whole list."""


class QualityGateConfig(Config):
    """Rule that refuses a candidate which is worse than the baseline."""

    metric: str = Field("ndcg@10", pattern=METRIC, description="What is compared, such as ndcg@10 or map.")
    max_drop: float = Field(
        0.01, ge=0, le=1, description="How much lower than the live version's the candidate's mean may be."
    )
    min_queries: int = Field(50, ge=2, description="Queries that both must have answered, at least.")
    judge: Literal["mean", "lower_bound"] = Field(
        "mean",
        description="What may not be lower: the mean of the differences, or the lower end of its confidence "
        "interval, which few queries make wide.",
    )


class EvaluationConfig(Config):
    """Queries and figures of a comparison of models."""

    queries: str | None = Field(
        None,
        min_length=1,
        description="Labeled queries: a Parquet, CSV or JSONL file, by path or as fsspec names it. Without, "
        "images of the catalog are changed and must find their own product.",
    )
    sample: int = Field(
        200, ge=2, le=10_000, description="Images that are drawn from the catalog where no labels are."
    )
    seed: int = Field(0, ge=0, description="Of the drawing, of the changes, and of the intervals.")
    cutoffs: tuple[int, ...] = Field(
        (1, 5, 10), min_length=1, description="Places k at which precision, recall and nDCG are measured."
    )
    relevant_from: int = Field(
        1,
        ge=1,
        description="Smallest grade that answers a query for precision, recall, map and mrr; nDCG counts all.",
    )
    depth: int = Field(
        100,
        ge=1,
        le=1000,
        description="Products of one list; those beyond count as not found by map and mrr.",
    )
    pool_products: int = Field(
        2000,
        ge=10,
        le=10_000,
        description="Products to search among while a collection is not complete; every collection holds them.",
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="Resamples of the bootstrap.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Share of intervals that hold the true mean.")
    shown_queries: int = Field(20, ge=0, le=200, description="Queries that the report shows with images.")
    quality_gate: QualityGateConfig = Field(QualityGateConfig(), description="When a candidate is refused.")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Everything that is measured, the quality gate's metric included."""
        names = [f"{name}@{k}" for name in ("precision", "recall", "ndcg") for k in sorted(set(self.cutoffs))]
        return tuple(dict.fromkeys([*names, "map", "mrr", self.quality_gate.metric]))

    @model_validator(mode="after")
    def _deep_enough(self) -> Self:
        deepest = max([*self.cutoffs, _cutoff(self.quality_gate.metric)])
        if min(self.cutoffs) < 1 or deepest > self.depth:
            raise ValueError(f"cutoffs lie between 1 and depth, which is {self.depth}; {deepest} does not")
        return self


def _cutoff(metric: str) -> int:
    return int(metric.partition("@")[2] or 1)
