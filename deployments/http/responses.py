"""Conversions of domain types to the response schemas that several routes share."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from core import types
from core.search import SearchResult
from vitrine.schemas.products import Product
from vitrine.schemas.search import ModelUsed, SearchHit, SearchResponse


def rounded(timings_ms: Mapping[str, float]) -> dict[str, float]:
    """Round the milliseconds of each stage."""
    return {stage: round(ms, 3) for stage, ms in timings_ms.items()}


def product_response(product: types.Product) -> Product:
    """Convert a product."""
    fields = asdict(product)
    for image in fields["images"]:
        image["url"] = f"/v1/images/{image['image_id']}"
    return Product.model_validate(fields)


def search_response(found: SearchResult, request_id: str) -> SearchResponse:
    """Convert a page of results."""
    results = [
        SearchHit(product=product_response(found.products[hit.product_id]), **asdict(hit))
        for hit in found.hits
    ]
    return SearchResponse(results=results, request_id=request_id, **search_details(found))


def search_details(found: SearchResult) -> dict[str, Any]:
    """List the values of the fields of `SearchDetails`."""
    return {
        "models_used": [
            ModelUsed(
                model=info.name,
                fingerprint=info.fingerprint,
                collection=info.collection,
                weight=found.weights.get(info.name, 0.0),
            )
            for info in found.versions
        ],
        "keyword_weight": found.keyword_weight,
        "skipped": found.skipped,
        "incomplete": found.incomplete,
        "thresholds": found.thresholds,
        "degraded": found.degraded,
        "timings_ms": rounded(found.timings_ms),
    }
