"""Routes of status: health, models, versions, their gaps, and statistics."""

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from core.errors import NotFound, VitrineError
from core.types import EncoderInfo, LedgerCounts
from deployments.http.auth import READ
from deployments.http.errors import WITH_KEY, fails
from deployments.http.requests import services
from deployments.http.responses import rounded
from deployments.services.assembly import Services
from deployments.services.status import READY_TIMEOUT_S
from vitrine.schemas.base import ErrorResponse
from vitrine.schemas.operations import (
    CaptionCounts,
    FailedImage,
    GapsResponse,
    IndexCounts,
    MissingImage,
    Model,
    ModelVersion,
    ReadyResponse,
    StatsResponse,
)

router = APIRouter(tags=["status"])


@router.get("/health/live", summary="The process answers")
async def live() -> dict[str, str]:
    """Answer as long as the process runs."""
    return {"status": "live"}


@router.get(
    "/health/ready",
    summary="Everything works, seen by one real pass",
    response_model=ReadyResponse,
    responses=fails(503, model=ReadyResponse | ErrorResponse),
)
async def ready(request: Request, response: Response) -> ReadyResponse:
    """Run one image through every encoder and ask catalog and store; 503 names what is not ready.

    A replica runs its model for this once in some seconds. An encoder that was scaled to zero is ready, and is
    not started.
    """
    service = services(request)
    readiness = await service.status.ready()
    problems = dict(readiness.problems)
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await service.api_keys.allow_anonymous()
    except TimeoutError:
        problems["keys"] = f"did not answer within {READY_TIMEOUT_S:g} s"
    except VitrineError as error:
        problems["keys"] = error.message
    response.status_code = 503 if problems else 200
    return ReadyResponse(ready=not problems, problems=problems, timings_ms=rounded(readiness.timings_ms))


@router.get("/v1/models", summary="What is served", dependencies=[READ], responses=fails(*WITH_KEY))
async def models(request: Request) -> list[Model]:
    """List the configured models with the versions that serve.

    A model that is scaled to zero is not started. It is as it was when it last ran; if this gateway has not seen
    that since the last deployment, its live version is listed, and `captions` and `reranks` are null.
    """
    listed = []
    for status in await services(request).status.models():
        serving = None
        if status.info is not None and status.counts is not None:
            serving = _version(status.info, status.counts, status.live)
        listed.append(
            Model(
                model=status.name,
                captions=status.captions,
                reranks=status.reranks,
                serving=serving,
                problem=status.problem,
            )
        )
    return listed


@router.get(
    "/v1/models/{model}/versions",
    summary="All versions of a model",
    dependencies=[READ],
    responses=fails(*WITH_KEY, 404),
)
async def versions(model: str, request: Request) -> list[ModelVersion]:
    """List the versions of a model that have a collection, oldest first."""
    known = await services(request).status.versions(model)
    return [_version(info, counts, live) for info, counts, live in known]


@router.get("/v1/stats", summary="Numbers", dependencies=[READ], responses=fails(*WITH_KEY))
async def stats(request: Request) -> StatsResponse:
    """Count products, images, what each model has indexed, and what those that can have captioned.

    A model whose `captions` are null in the list of models is left out of the captions.

    What the models have indexed is as of a moment ago: `counts_ttl_s` of the configuration says how long.
    """
    service = services(request)
    products, images = await service.status.counts()
    models = await service.status.models()
    return StatsResponse(
        products=products,
        images=images,
        models={each.name: _counts(each.counts) if each.counts else None for each in models},
        captions={
            each.name: CaptionCounts(**asdict(counts))
            for each in models
            if (counts := await service.captioner.counts(each.info)) is not None
        },
    )


@router.get(
    "/v1/models/{model}/versions/{fingerprint}/gaps",
    dependencies=[READ],
    summary="What a version has not indexed",
    responses=fails(*WITH_KEY, 404),
)
async def gaps(
    model: str, fingerprint: str, request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> GapsResponse:
    """List up to `limit` images that are missing, and as many that have failed with the reason."""
    return await asyncio.to_thread(_gaps, services(request), model, fingerprint, limit)


def _gaps(service: Services, model: str, fingerprint: str, limit: int) -> GapsResponse:
    catalog = service.catalog
    known = [
        each for each in catalog.ledger.versions() if (each.name, each.fingerprint) == (model, fingerprint)
    ]
    if not known:
        raise NotFound(f"there is no version {fingerprint!r:.40} of model {model!r:.60}")
    # Each list of indexed attributes makes a collection of its own of the same version.
    ours = [each for each in known if each.index_schema == service.index_schema]
    collection = (ours or known)[-1].collection
    missing = catalog.ledger.missing(collection, limit)
    failed = catalog.quarantine.page(collection, limit)
    return GapsResponse(
        collection=collection,
        missing=[MissingImage.model_validate(each, from_attributes=True) for each in missing],
        failed=[FailedImage.model_validate(each, from_attributes=True) for each in failed],
    )


def _version(info: EncoderInfo, counts: LedgerCounts, live: bool) -> ModelVersion:
    return ModelVersion(
        model=info.name, collection=info.collection, live=live, counts=_counts(counts), **asdict(info)
    )


def _counts(counts: LedgerCounts) -> IndexCounts:
    return IndexCounts.model_validate(counts, from_attributes=True)
