"""What a comparison came to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core.evaluation import EvaluationConfig
from core.types import EncoderInfo, Hit
from jobs.evaluation.bootstrap import Estimate
from jobs.evaluation.contenders import Contender
from jobs.evaluation.gate import GateDecision
from jobs.evaluation.queries import JudgedQuery

Values = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By contender, metric and query id; queries that a contender could not answer are missing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`first` minus `second` by one metric, over the queries that both have answered."""

    first: str
    second: str
    metric: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Figures:
    """Queries of one kind: estimates by contender and metric, and differences between contenders."""

    kind: str
    queries: int
    estimates: Mapping[str, Mapping[str, Estimate]]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """A comparison: who was compared, on which queries, among how many products, and how they did.

    `hits` are the first products of each list, as far as a report shows them. `pool` is the number of
    products that were searched among, None: the whole catalog. `decision` is the gate's, where there was a
    candidate. `notes` tell what was left out.
    """

    config: EvaluationConfig
    versions: Mapping[str, EncoderInfo]
    contenders: tuple[Contender, ...]
    queries: tuple[JudgedQuery, ...]
    values: Values
    hits: Mapping[str, Mapping[str, tuple[Hit, ...]]]
    figures: tuple[Figures, ...]
    decision: GateDecision | None
    pool: int | None
    notes: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Everything but the queries' own values, as JSON knows it."""
        return {
            "queries": len(self.queries),
            "seed": self.config.seed,
            "products_searched": self.pool if self.pool is not None else "all",
            "versions": {
                label: {
                    "collection": info.collection,
                    "dimension": info.dimension,
                    "checkpoint": info.checkpoint,
                }
                for label, info in self.versions.items()
            },
            "contenders": [asdict(contender) for contender in self.contenders],
            "figures": [asdict(figures) for figures in self.figures],
            "gate": None if self.decision is None else asdict(self.decision),
            "notes": list(self.notes),
        }

    def full(self) -> dict[str, Any]:
        """The summary, and each query's values by contender and metric."""
        return self.summary() | {
            "config": self.config.model_dump(mode="json"),
            "values": {
                name: {metric: dict(values) for metric, values in by_metric.items()}
                for name, by_metric in self.values.items()
            },
        }
