"""What metrics are told, in place of Ray's, which would export it."""

import pytest

from deployments.later import do_now
from deployments.metric_kinds import Metric
from deployments.metrics import METRICS


class ToldMetrics:
    """Remembers every value with its labels; labels must be those that the metric declares."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._told: list[tuple[Metric, float, dict[str, str]]] = []
        for metric in METRICS:
            monkeypatch.setitem(vars(metric), "_exported", _Exported(metric, self._told))

    @property
    def values(self) -> list[tuple[str, float, dict[str, str]]]:
        """Name, value and labels of all that was told until now, in order."""
        do_now()
        for metric, _, labels in self._told:
            assert set(labels) == set(metric.labels), f"labels of {metric.name}"
            assert all(isinstance(each, str) for each in labels.values())
        return [(metric.name, value, labels) for metric, value, labels in self._told]

    def of(self, metric: Metric, **labels: str) -> list[float]:
        """The values of a metric that have these labels, among others."""
        return [
            value
            for name, value, found in self.values
            if name == metric.name and labels.items() <= found.items()
        ]


class _Exported:
    def __init__(self, metric: Metric, told: list[tuple[Metric, float, dict[str, str]]]) -> None:
        self._metric, self._told = metric, told
        self.inc = self.set = self.observe = self._tell

    def _tell(self, value: float, tags: dict[str, str]) -> None:
        self._told.append((self._metric, value, tags))
