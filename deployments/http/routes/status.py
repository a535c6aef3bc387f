"""Routes of status: health, models, versions, their gaps, and statistics."""

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from catalog.opening import Catalog
from core.errors import NotFound, VitrineError
from core.types import EncoderInfo, LedgerCounts
from deployments.http.auth import READ
from deployments.http.errors import fails
from deployments.services.assembly import services
from deployments.services.status import READY_TIMEOUT_S

router = APIRouter(tags=["status"])


class CountsView(BaseModel):
    """How far a collection has come; `failed` images are in quarantine."""

    images: int
    indexed: int
    failed: int
    missing: int

    @classmethod
    def of(cls, counts: LedgerCounts) -> "CountsView":
        """Show the counts of a collection."""
        return cls(images=counts.images, indexed=counts.indexed, failed=counts.failed, missing=counts.missing)


class VersionView(BaseModel):
    """A model version and its collection."""

    model: str
    family: str
    checkpoint: str
    fingerprint: str
    collection: str
    dimension: int
    modalities: list[str]
    precision: str
    device: str
    live: bool
    counts: CountsView

    @classmethod
    def of(cls, info: EncoderInfo, counts: LedgerCounts, live: bool) -> "VersionView":
        """Show a version."""
        return cls(
            model=info.name,
            family=info.family,
            checkpoint=info.checkpoint,
            fingerprint=info.fingerprint,
            collection=info.collection,
            dimension=info.dimension,
            modalities=list(info.modalities),
            precision=info.precision,
            device=info.device,
            live=live,
            counts=CountsView.of(counts),
        )


class ModelView(BaseModel):
    """A configured model: the version that serves, or the problem it has."""

    model: str
    captions: bool = Field(description="Whether it writes captions.")
    serving: VersionView | None
    problem: str | None


class CaptionCountsView(BaseModel):
    """How far the captions of a model have come; `failed` images are in quarantine."""

    images: int
    captioned: int
    failed: int
    missing: int


class StatsView(BaseModel):
    """Numbers of the whole service."""

    products: int
    images: int
    models: dict[str, CountsView | None]
    captions: dict[str, CaptionCountsView] = Field(description="By those models that write captions.")


class ReadyView(BaseModel):
    """Whether the service is ready, and what stands in the way."""

    ready: bool
    problems: dict[str, str]
    timings_ms: dict[str, float]


@router.get("/health/live", summary="The process answers")
async def live() -> dict[str, str]:
    """Answer as long as the process runs."""
    return {"status": "live"}


@router.get(
    "/health/ready",
    summary="Readiness, by one real pass",
    response_model=ReadyView,
    responses={503: {"model": ReadyView, "description": "What is not ready."}},
)
async def ready(request: Request, response: Response) -> ReadyView:
    """Run one image through every encoder and ask catalog and store; 503 names what is not ready.

    A replica runs its model for this once in some seconds. An encoder that was scaled to zero is ready, and is
    not woken.
    """
    service = services(request)
    readiness = await service.status.ready()
    problems = dict(readiness.problems)
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await service.keyring.open()
    except TimeoutError:
        problems["keys"] = f"did not answer within {READY_TIMEOUT_S:g} s"
    except VitrineError as error:
        problems["keys"] = error.message
    response.status_code = 503 if problems else 200
    timings = {name: round(ms, 3) for name, ms in readiness.timings_ms.items()}
    return ReadyView(ready=not problems, problems=problems, timings_ms=timings)


@router.get("/v1/models", summary="What is served", dependencies=[READ])
async def models(request: Request) -> list[ModelView]:
    """List the configured models with the versions that serve."""
    views = []
    for status in await services(request).status.models():
        serving = None
        if status.info is not None and status.counts is not None:
            serving = VersionView.of(status.info, status.counts, status.live)
        writes = status.info is not None and status.info.captions is not None
        views.append(ModelView(model=status.name, captions=writes, serving=serving, problem=status.problem))
    return views


@router.get(
    "/v1/models/{model}/versions",
    summary="All versions of a model",
    dependencies=[READ],
    responses=fails(404),
)
async def versions(model: str, request: Request) -> list[VersionView]:
    """List the versions of a model that have a collection, oldest first."""
    known = await services(request).status.versions(model)
    return [VersionView.of(info, counts, live) for info, counts, live in known]


@router.get("/v1/stats", summary="Numbers", dependencies=[READ])
async def stats(request: Request) -> StatsView:
    """Count products, images, what each model has indexed, and what those that can have captioned.

    What the models have indexed is as of a moment ago: `counts_ttl_s` of the configuration says how long.
    """
    service = services(request)
    products, images = await service.status.counts()
    models = await service.status.models()
    return StatsView(
        products=products,
        images=images,
        models={each.name: CountsView.of(each.counts) if each.counts else None for each in models},
        captions={
            each.name: CaptionCountsView(**asdict(counts))
            for each in models
            if (counts := await service.captioner.counts(each.info)) is not None
        },
    )


class MissingView(BaseModel):
    """An image that is not indexed yet."""

    image_id: str
    product_id: str
    revision: int


class FailedView(MissingView):
    """An image that the model could not take."""

    error: str


class GapsView(BaseModel):
    """The first gaps of a collection, oldest revision first."""

    collection: str
    missing: list[MissingView]
    failed: list[FailedView] = Field(
        description="Images in quarantine: they are tried again when they change, and by "
        "`vitrine verify --repair`."
    )


@router.get(
    "/v1/models/{model}/versions/{fingerprint}/gaps",
    dependencies=[READ],
    summary="What a version has not indexed",
    responses=fails(404),
)
async def gaps(
    model: str, fingerprint: str, request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> GapsView:
    """List up to `limit` images that are missing, and as many that have failed with the reason."""
    return await asyncio.to_thread(_gaps, services(request).catalog, model, fingerprint, limit)


def _gaps(catalog: Catalog, model: str, fingerprint: str, limit: int) -> GapsView:
    known = [
        each for each in catalog.ledger.versions() if (each.name, each.fingerprint) == (model, fingerprint)
    ]
    if not known:
        raise NotFound(f"there is no version {fingerprint!r:.40} of model {model!r:.60}")
    collection = known[0].collection
    missing = catalog.ledger.missing(collection, limit)
    failed = catalog.quarantine.page(collection, limit)
    return GapsView(
        collection=collection,
        missing=[MissingView.model_validate(each, from_attributes=True) for each in missing],
        failed=[FailedView.model_validate(each, from_attributes=True) for each in failed],
    )
