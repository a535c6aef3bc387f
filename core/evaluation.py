"""How models are compared, and when a worse one is refused."""

from typing import Literal, Self

from pydantic import Field, model_validator

from core.config import Config

METRIC = r"^((precision|recall|ndcg)@[1-9][0-9]{0,2}|map|mrr)$"
"""Names of metrics; `map` and `mrr` look at the whole list."""


class GateConfig(Config):
    """When a candidate may take over from the live version."""

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
        description="Labelled queries: a Parquet, CSV or JSONL file, by path or as fsspec names it. Without, "
        "pictures of the catalog are changed and must find their own product.",
    )
    sample: int = Field(
        200, ge=2, le=10_000, description="Pictures that are drawn from the catalog where no labels are."
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
    shown_queries: int = Field(20, ge=0, le=200, description="Queries that the report shows with pictures.")
    gate: GateConfig = Field(GateConfig(), description="When a candidate is refused.")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Everything that is measured, the gate's metric included."""
        names = [f"{name}@{k}" for name in ("precision", "recall", "ndcg") for k in sorted(set(self.cutoffs))]
        return tuple(dict.fromkeys([*names, "map", "mrr", self.gate.metric]))

    @model_validator(mode="after")
    def _deep_enough(self) -> Self:
        deepest = max([*self.cutoffs, _cutoff(self.gate.metric)])
        if min(self.cutoffs) < 1 or deepest > self.depth:
            raise ValueError(f"cutoffs lie between 1 and depth, which is {self.depth}; {deepest} does not")
        return self


def _cutoff(metric: str) -> int:
    return int(metric.partition("@")[2] or 1)
