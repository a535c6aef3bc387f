"""Charts of the report: they show the figures of the tables."""

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from core.config import EvaluationConfig
from jobs.evaluation.report import report
from jobs.evaluation.result import Estimate, EvaluationResult, Figures
from models.images import ImageLimits
from tests.support.catalog_fixtures import new_catalog

CONFIG = EvaluationConfig(cutoffs=(1,), shown_queries=0)
ESTIMATES = {
    "openclip": Estimate(0.52, 0.46, 0.58, 80),
    "a <long> name & more": Estimate(0.71, 0.66, 0.745, 80),
    "asked once": Estimate(0.5, None, None, 1),
}
"""As of each metric."""


def page(tmp_path: Path, estimates: Mapping[str, Estimate]) -> str:
    by_metric = {name: dict.fromkeys(CONFIG.metrics, each) for name, each in estimates.items()}
    result = EvaluationResult(
        config=CONFIG,
        versions={},
        systems=(),
        baseline=None,
        candidate=None,
        queries=(),
        values={},
        hits={},
        figures=(Figures("text", 80, by_metric, ()),),
        decision=None,
        pool=None,
        notes=(),
    )
    catalog = new_catalog(tmp_path)
    try:
        return report(result, catalog, ImageLimits())
    finally:
        catalog.close()


def charts(html: str) -> dict[str, ElementTree.Element]:
    """The drawings by their captions."""
    found = re.findall(r"<figcaption>(.*?)</figcaption>\s*(<svg.*?</svg>)", html, re.DOTALL)
    return {caption: ElementTree.fromstring(drawing) for caption, drawing in found}


class Axis:
    """Values at places of a chart, by the labels below its axis."""

    def __init__(self, chart: ElementTree.Element) -> None:
        labels = [each for each in chart.iter("text") if each.get("class")]
        self.places = [float(each.get("x", "")) for each in labels]
        self.values = [float(each.text or "") for each in labels]

    def value(self, place: str | None) -> float:
        share = (float(place or "") - self.places[0]) / (self.places[-1] - self.places[0])
        assert 0 <= share <= 1
        return self.values[0] + share * (self.values[-1] - self.values[0])


def test_each_metric_has_a_chart_of_its_means_and_intervals(tmp_path: Path) -> None:
    drawn = charts(page(tmp_path, ESTIMATES))
    assert tuple(drawn) == CONFIG.metrics
    for chart in drawn.values():
        axis = Axis(chart)
        assert axis.values == [0.4, 0.6, 0.8]
        assert [each.text for each in chart.iter("text") if not each.get("class")] == list(ESTIMATES)
        means = [axis.value(each.get("cx")) for each in chart.iter("circle")]
        assert means == pytest.approx([each.mean for each in ESTIMATES.values()], abs=0.001)
        bars = [each for each in chart.iter("line") if each.get("class") == "interval"]
        ends = [(axis.value(bar.get("x1")), axis.value(bar.get("x2"))) for bar in bars]
        assert ends == [pytest.approx(each, abs=0.001) for each in ((0.46, 0.58), (0.66, 0.745))]


@pytest.mark.parametrize(("mean", "ends"), [(0.0, [0.0, 0.05, 0.1]), (1.0, [0.9, 0.95, 1.0])])
def test_a_chart_of_equal_values_has_an_axis_within_0_and_1(
    tmp_path: Path, mean: float, ends: list[float]
) -> None:
    for chart in charts(page(tmp_path, {"only": Estimate(mean, mean, mean, 9)})).values():
        axis = Axis(chart)
        assert axis.values == ends
        assert [axis.value(each.get("cx")) for each in chart.iter("circle")] == [pytest.approx(mean)]


def test_a_report_has_neither_scripts_nor_addresses(tmp_path: Path) -> None:
    html = page(tmp_path, ESTIMATES)
    assert "<svg" in html
    assert not re.search(r"<script|https?:|url\(|\son\w+=", html)
