"""Route of captions of images."""

from fastapi import APIRouter, Request

from core.errors import InvalidInput, VitrineError
from deployments.http.bodies import Form, RequestBody, decode_base64, files_of, text_of
from deployments.http.dependencies import READ, services
from deployments.http.errors import fails
from deployments.http.inputs import fetch_image
from deployments.http.responses import rounded
from deployments.services.assembly import Services
from vitrine.schemas.embeddings import CaptionRequest, CaptionResponse

router = APIRouter(prefix="/v1", tags=["captions"], dependencies=[READ])


IMAGE = RequestBody(
    CaptionRequest,
    Form(
        texts={"model": "An encoder's name; left out: the first that writes captions."},
        files={"image": "An image file."},
        required=("image",),
    ),
)


@router.post(
    "/caption",
    summary="Caption an image",
    openapi_extra=IMAGE.described,
    responses=fails(404, 424),
)
async def caption(request: Request) -> CaptionResponse:
    """Describe an image: a multipart file `image` with an optional field `model`, or JSON."""
    service = services(request)
    param, image, model = await _read(request, service)
    captioned = await service.captioner.caption(image, model)
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


async def _read(request: Request, service: Services) -> tuple[str, bytes, str | None]:
    """Read the name of the image's field, the image and the model."""
    if IMAGE.is_form(request):
        async with IMAGE.form(request, 1) as form:
            (file,) = await files_of(form, "image")
            return "image", file, text_of(form, "model")
    body = await IMAGE.json(request)
    if body.image is not None and body.image_url is None:
        return "image", await decode_base64(body.image, "image"), body.model
    if body.image_url is not None and body.image is None:
        image = await fetch_image(body.image_url, service.fetcher, "image_url")
        return "image_url", image, body.model
    raise InvalidInput("give one of `image` and `image_url`").at("body")
