"""Route of captions of images."""

from fastapi import APIRouter, Request

from core.errors import InvalidInput, VitrineError
from deployments.http.auth import READ
from deployments.http.errors import WITH_BODY, WITH_KEY, fails
from deployments.http.requests import (
    BodyRoute,
    Files,
    file_field,
    form,
    read_image,
    services,
    text_field,
)
from deployments.http.responses import rounded
from vitrine.schemas.embeddings import CaptionRequest, CaptionResponse

router = APIRouter(
    prefix="/v1", tags=["captions"], dependencies=[READ], responses=fails(*WITH_KEY), route_class=BodyRoute
)


@router.post(
    "/caption",
    summary="Caption an image",
    openapi_extra=form(
        {
            "model": text_field("An encoder's name; left out: the first that writes captions."),
            "image": file_field("An image file."),
        },
        required=["image"],
    ),
    responses=fails(*WITH_BODY, 404, 424),
)
async def caption(request: Request, body: CaptionRequest, files: Files) -> CaptionResponse:
    """Describe an image: a multipart file `image` with an optional field `model`, or JSON."""
    service = services(request)
    if files:
        param, image = files[0]
    elif (body.image is None) == (body.image_url is None):
        raise InvalidInput("give one of `image` and `image_url`").at("body")
    else:
        param, image = await read_image(body.image, body.image_url, service.fetcher)
    captioned = await service.captioner.caption(image, body.model)
    text = captioned.texts[0]
    if isinstance(text, VitrineError):
        raise text.at(param)
    assert captioned.info.captions is not None
    return CaptionResponse(
        model=captioned.info.name,
        fingerprint=captioned.info.captions,
        caption=text,
        timings_ms=rounded(captioned.timings_ms),
        request_id=request.state.request_id,
    )
