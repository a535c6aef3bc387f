"""Counters, gauges and histograms over those of Ray, which exports them to Prometheus.

Ray's objects are made at the first use: only inside of a replica do they learn which one it is. Serve adds
the labels `application`, `deployment` and `replica` to ours, and every name gets the prefix `ray_`. They are
told of values a moment later, when the request that a value is about has been answered.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ray.serve import metrics

from deployments.later import later


@dataclass(frozen=True)
class Metric:
    """What is exported: a name with its unit, what it means, and the labels that every value has."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: ClassVar[str]


@dataclass(frozen=True)
class Counter(Metric):
    """What only grows, as long as the replica lives."""

    kind: ClassVar[str] = "counter"

    def add(self, amount: float = 1.0, /, **labels: str) -> None:
        """Count so many more, which may be none."""
        if amount > 0:
            later(self._exported.inc, amount, labels)

    @cached_property
    def _exported(self) -> Any:
        return metrics.Counter(self.name, description=self.help, tag_keys=self.labels)


@dataclass(frozen=True)
class Gauge(Metric):
    """What goes up and down."""

    kind: ClassVar[str] = "gauge"

    def set(self, value: float, /, **labels: str) -> None:
        """Say how it is now; exported until it is said anew."""
        later(self._exported.set, value, labels)

    @cached_property
    def _exported(self) -> Any:
        return metrics.Gauge(self.name, description=self.help, tag_keys=self.labels)


@dataclass(frozen=True)
class Histogram(Metric):
    """How values are spread. Ray rebuilds them from their buckets, so that sums, and means, are estimates."""

    buckets: tuple[float, ...] = (1.0,)
    kind: ClassVar[str] = "histogram"

    def observe(self, value: float, /, **labels: str) -> None:
        """Add one value."""
        later(self._exported.observe, value, labels)

    @cached_property
    def _exported(self) -> Any:
        return metrics.Histogram(
            self.name, description=self.help, boundaries=list(self.buckets), tag_keys=self.labels
        )
