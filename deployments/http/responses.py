"""Conversions of domain types to the response schemas that several routes share."""

from collections.abc import Mapping
from typing import Any

from core import types
from core.rerank import Reranked
from core.search import SearchResult
from vitrine.schemas import search as schemas
from vitrine.schemas.products import Product, ProductImage
from vitrine.schemas.search import ModelUsed, SearchHit, SearchResponse


def rounded(timings_ms: Mapping[str, float]) -> dict[str, float]:
    """Round the milliseconds of each stage."""
    return {stage: round(ms, 3) for stage, ms in timings_ms.items()}


def product_response(product: types.Product) -> Product:
    """Convert a product; field by field, for `dataclasses.asdict` would copy all of it deeply first."""
    return Product(
        product_id=product.product_id,
        title=product.title,
        description=product.description,
        attributes=dict(product.attributes),
        images=[_image(image) for image in product.images],
        revision=product.revision,
        created_at=product.created_at,
        updated_at=product.updated_at,
    )


def _image(image: types.ProductImage) -> ProductImage:
    return ProductImage(
        image_id=image.image_id,
        url=f"/v1/images/{image.image_id}",
        media_type=image.media_type,
        width=image.width,
        height=image.height,
        bytes=image.bytes,
        revision=image.revision,
        caption=image.caption,
    )


def search_response(found: SearchResult, request_id: str) -> SearchResponse:
    """Convert a page of results."""
    results = [
        SearchHit(
            product_id=hit.product_id,
            score=hit.score,
            image_id=hit.image_id,
            rerank_score=rerank_score(found, hit.product_id),
            product=product_response(found.products[hit.product_id]),
        )
        for hit in found.hits
    ]
    return SearchResponse(results=results, request_id=request_id, **search_details(found))


def rerank_score(found: SearchResult, product_id: str) -> float | None:
    """Return the score of the second stage; None where the product has none."""
    return None if found.reranked is None else found.reranked.scores.get(product_id)


def _reranked(outcome: Reranked) -> schemas.Reranked:
    return schemas.Reranked(
        model=outcome.rerank.model,
        fingerprint=outcome.version,
        depth=outcome.rerank.depth,
        reranked=len(outcome.scores),
        skipped=dict(outcome.skipped),
    )


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
        "rerank": None if found.reranked is None else _reranked(found.reranked),
    }
