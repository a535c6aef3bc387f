"""Report of a comparison: an HTML page with images, and the stored files."""

import base64
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from catalog.opening import Catalog
from core.errors import InvalidInput, NotFound
from core.types import Hit
from jobs.evaluation.queries import JudgedQuery
from jobs.evaluation.result import EvaluationResult
from models.images import ImageLimits, decoding

_TEMPLATE = "report.html.j2"
_THUMBNAIL_SIDE = 96
_THUMBNAILS_KEPT = 4096


class Thumbnails:
    """Thumbnails of queries and hits as data URIs; None for an image that cannot be read."""

    def __init__(self, catalog: Catalog, limits: ImageLimits) -> None:
        self._catalog = catalog
        self._limits = limits
        self.of_image = lru_cache(maxsize=_THUMBNAILS_KEPT)(self._of_image)

    def of_file(self, data: bytes) -> str | None:
        """Shrink an image file."""
        file = io.BytesIO()
        try:
            with decoding(data, self._limits, target=_THUMBNAIL_SIDE) as decoded:
                decoded.image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
                decoded.image.save(file, "JPEG", quality=75)
        except InvalidInput:
            return None
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

    def _of_image(self, image_id: str) -> str | None:
        try:
            data = self._catalog.blobs.get(self._catalog.products.image(image_id).sha256)
        except NotFound:
            return None
        return self.of_file(data)


def report(result: EvaluationResult, catalog: Catalog, limits: ImageLimits) -> str:
    """Render the page; it loads nothing from anywhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        result=result,
        metrics=result.config.metrics,
        headline=result.config.quality_gate.metric,
        shown=[(query, _lists(result, query)) for query, _ in most_different(result)],
        thumbnails=Thumbnails(catalog, limits),
    )


def most_different(result: EvaluationResult) -> list[tuple[JudgedQuery, float]]:
    """List the queries whose best and worst answer differ most by the quality gate's metric, with the difference."""
    by_system = {name: values[result.config.quality_gate.metric] for name, values in result.values.items()}
    spreads = [(query, _spread(by_system, query.query_id)) for query in result.queries]
    apart = sorted((each for each in spreads if each[1] > 0), key=lambda each: (-each[1], each[0].query_id))
    return apart[: result.config.shown_queries]


def _spread(by_system: Mapping[str, Mapping[str, float]], query_id: str) -> float:
    found = [values[query_id] for values in by_system.values() if query_id in values]
    return max(found) - min(found) if found else 0.0


def _lists(result: EvaluationResult, query: JudgedQuery) -> list[tuple[str, float, tuple[Hit, ...]]]:
    """List the systems that answered the query, best first, with the values and products of their answers."""
    metric, key = result.config.quality_gate.metric, query.query_id
    answered = {name: by[metric][key] for name, by in result.values.items() if key in by[metric]}
    best_first = sorted(answered, key=answered.__getitem__, reverse=True)
    return [(name, answered[name], result.hits[name][key]) for name in best_first]


def store_files(result: EvaluationResult, catalog: Catalog, limits: ImageLimits) -> dict[str, Any]:
    """Store the files where the service finds them; return their sha256 by name, as `files`.

    Raises:
        Unavailable: the store of files does not take them.
    """
    contents = {
        "report.html": report(result, catalog, limits),
        "evaluation.json": json.dumps(result.full(), indent=1),
    }
    return {"files": {name: catalog.reports.put(text.encode()) for name, text in contents.items()}}
