"""Routes of image files: the original and its thumbnails, with ETags."""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from deployments.http.auth import READ
from deployments.http.errors import WITH_KEY, fails
from deployments.http.requests import services
from deployments.services.thumbnails import MEDIA_TYPE, Size
from models.images import MEDIA_TYPES

router = APIRouter(prefix="/v1", tags=["products"], dependencies=[READ], responses=fails(*WITH_KEY, 404))


def _file(media_types: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    return {
        200: {"description": "The file.", "content": content},
        304: {"description": "The caller has it: its If-None-Match says so."},
    }


@router.get(
    "/images/{image_id}",
    summary="Read an image file",
    response_class=Response,
    responses=_file(MEDIA_TYPES),
)
async def get_image(image_id: str, request: Request) -> Response:
    """Return the original image file."""
    catalog = services(request).catalog
    image = await asyncio.to_thread(catalog.products.image, image_id)
    etag = f'"{image.sha256}"'
    return _not_modified(request, etag) or Response(
        await asyncio.to_thread(catalog.blobs.get, image.sha256),
        media_type=image.media_type,
        headers=_headers(etag),
    )


@router.get(
    "/images/{image_id}/thumbnail",
    summary="Read an image in a small size",
    response_class=Response,
    responses=_file([MEDIA_TYPE]),
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
    return _not_modified(request, etag) or Response(
        await service.thumbnails.get(image, size), media_type=MEDIA_TYPE, headers=_headers(etag)
    )


def _not_modified(request: Request, etag: str) -> Response | None:
    return Response(status_code=304, headers=_headers(etag)) if matches(request, etag) else None


def _headers(etag: str) -> dict[str, str]:
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
