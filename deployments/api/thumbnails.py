"""Small copies of pictures, for lists."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from deployments.api.fails import fails
from deployments.etags import NOT_MODIFIED, kept_for_good, matches
from deployments.scopes import READ
from deployments.services import services
from deployments.thumbnails import MEDIA_TYPE, Size

router = APIRouter(prefix="/v1", tags=["products"], dependencies=[READ])
FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    },
    **NOT_MODIFIED,
}


@router.get(
    "/images/{image_id}/thumbnail",
    summary="Read a picture in a small size",
    response_class=Response,
    responses=FILE | fails(404),
)
async def get_thumbnail(
    image_id: str,
    request: Request,
    size: Annotated[Size, Query(description="At most 320 or 960 pixels a side.")] = "small",
) -> Response:
    """Return the picture as WebP, upright, never larger than the picture itself."""
    service = services(request)
    picture = await asyncio.to_thread(service.catalog.products.picture, image_id)
    etag = f'"{picture.sha256}-{size}"'
    headers = kept_for_good(etag)
    if matches(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(await service.thumbnails.get(picture, size), media_type=MEDIA_TYPE, headers=headers)
