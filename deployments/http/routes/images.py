"""Routes of image files: the original and its thumbnails, with ETags."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from deployments.http.auth import READ
from deployments.http.errors import WITH_KEY, fails
from deployments.http.requests import services
from deployments.services.thumbnails import MEDIA_TYPE, Size

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The caller has it: its If-None-Match says so."}
}
"""Describes the answer without content in the OpenAPI document."""


def kept_for_good(etag: str) -> dict[str, str]:
    """Build the headers of an image file, which never changes.

    Only the caller's own cache may keep it: a shared one would hand it to those who have no key, and it
    would still do so when the first key is made after it was read.
    """
    return {"Cache-Control": "private, max-age=31536000, immutable", "ETag": etag}


def matches(request: Request, etag: str) -> bool:
    """Return whether the header If-None-Match names this tag; weak and strong tags are equal."""
    sent = ",".join(request.headers.getlist("if-none-match"))
    named = [each.strip().removeprefix("W/") for each in sent.split(",")]
    return "*" in named or etag.removeprefix("W/") in named


router = APIRouter(prefix="/v1", tags=["products"], dependencies=[READ], responses=fails(*WITH_KEY))
THUMBNAIL_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    },
    **NOT_MODIFIED,
}


@router.get(
    "/images/{image_id}/thumbnail",
    summary="Read an image in a small size",
    response_class=Response,
    responses=THUMBNAIL_FILE | fails(404),
)
async def get_thumbnail(
    image_id: str,
    request: Request,
    size: Annotated[Size, Query(description="At most 320 or 960 pixels a side.")] = "small",
) -> Response:
    """Return the image as WebP, upright, never larger than the image itself."""
    service = services(request)
    image = await asyncio.to_thread(service.catalog.products.image, image_id)
    etag = f'"{image.sha256}-{size}"'
    headers = kept_for_good(etag)
    if matches(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(await service.thumbnails.get(image, size), media_type=MEDIA_TYPE, headers=headers)
