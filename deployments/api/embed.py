"""One embedding, in a shape of our own."""

from fastapi import APIRouter, Request

from core.errors import InvalidInput, VitrineError
from core.types import EncoderInput
from deployments.api.answers import EmbeddingView
from deployments.api.bodies import decode_base64
from deployments.api.fails import fails
from deployments.api.forms import files_of
from deployments.api.pictures import fetch_picture
from deployments.api.requests import EmbedBody
from deployments.api.taken import Form, Taken
from deployments.scopes import READ
from deployments.services import Services, services

router = APIRouter(prefix="/v1", tags=["embeddings"], dependencies=[READ])
INPUT = Taken(EmbedBody, Form(files={"image": "A picture file."}, required=("image",)))


@router.post(
    "/embed/{model}",
    summary="Embed one picture or one text",
    openapi_extra=INPUT.described,
    responses=fails(404, 424),
)
async def embed(model: str, request: Request) -> EmbeddingView:
    """Return the unit vector of one picture (a multipart file `image`, base64 or a URL) or of one text."""
    service = services(request)
    encoder = service.encoders.get(model)
    field, item = await _read(request, service)
    encoded = await service.embedder.embed(encoder, [item])
    vector = encoded.vectors[0]
    if isinstance(vector, VitrineError):
        raise vector.at(field)
    return EmbeddingView(
        model=model,
        fingerprint=encoded.info.fingerprint,
        dimension=encoded.info.dimension,
        embedding=[float(value) for value in vector],
        timings_ms={stage: round(ms, 3) for stage, ms in encoded.timings_ms.items()},
        request_id=request.state.request_id,
    )


async def _read(request: Request, service: Services) -> tuple[str, EncoderInput]:
    """Read what to embed, and the field that it stood in."""
    if INPUT.is_form(request):
        async with INPUT.form(request, 1) as form:
            (file,) = await files_of(form, "image")
            return "image", file
    body = await INPUT.json(request)
    if [body.text, body.image, body.image_url].count(None) != 2:
        raise InvalidInput("give one of `text`, `image` and `image_url`").at("body")
    if body.text is not None:
        return "text", body.text
    if body.image is not None:
        return "image", await decode_base64(body.image, "image")
    return "image_url", await fetch_picture(str(body.image_url), service.fetcher, "image_url")
