"""What a model's version has not indexed, picture by picture."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from catalog.opening import Catalog
from core.errors import NotFound
from deployments.api.fails import fails
from deployments.scopes import READ
from deployments.services import services

router = APIRouter(prefix="/v1", tags=["status"], dependencies=[READ])


class MissingView(BaseModel):
    """A picture that is not indexed yet."""

    image_id: str
    product_id: str
    revision: int


class FailedView(MissingView):
    """A picture that the model could not take."""

    error: str


class GapsView(BaseModel):
    """The first gaps of a collection, oldest revision first."""

    collection: str
    missing: list[MissingView]
    failed: list[FailedView] = Field(
        description="Pictures in quarantine: they are tried again when they change, and by "
        "`vitrine verify --repair`."
    )


@router.get(
    "/models/{model}/versions/{fingerprint}/gaps",
    summary="What a version has not indexed",
    responses=fails(404),
)
async def gaps(
    model: str, fingerprint: str, request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> GapsView:
    """List up to `limit` pictures that are missing, and as many that have failed with the reason."""
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
