"""Routes of Weaviate's multi2vec-clip container, so that Weaviate can use this service.

Weaviate reads `error` of an answer as a string, so these calls differ from all others in that.
"""

from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from core.errors import VitrineError
from core.types import EncoderInfo
from deployments.http.auth import READ
from deployments.http.errors import ANY_CALL, WITH_BODY, WITH_KEY, fails, status_of
from deployments.http.requests import BodyRoute, decode_images, services
from deployments.observability.telemetry import note_error
from vitrine.schemas.base import WeaviateErrorResponse
from vitrine.schemas.embeddings import MetaResponse, VectorizeRequest, VectorizeResponse


class _WeaviateRoute(BodyRoute):
    """Answers errors as the container does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler of the route."""
        handle = super().get_route_handler()

        async def handle_in_their_shape(request: Request) -> Response:
            try:
                return await handle(request)
            except VitrineError as error:
                where = f"{error.param}: " if error.param else ""
                note_error(error.kind)
                return JSONResponse({"error": where + error.message}, status_of(error))

        return handle_in_their_shape


router = APIRouter(
    tags=["weaviate"], route_class=_WeaviateRoute, responses=fails(*ANY_CALL, model=WeaviateErrorResponse)
)


@router.post(
    "/vectorize",
    summary="Embed as Weaviate's multi2vec-clip container does",
    dependencies=[READ],
    responses=fails(*WITH_KEY, *WITH_BODY, model=WeaviateErrorResponse),
)
async def vectorize(request: Request, body: VectorizeRequest) -> VectorizeResponse:
    """Return a vector for each text and each image, from the configured `embedding_model`.

    The shape has no place for the error of one input: the first that fails refuses the request.
    """
    service = services(request)
    texts, images = body.texts or [], body.images or []
    encoder = await service.embedder.encoder(None)
    encoded = await service.embedder.embed(encoder, [*texts, *await decode_images(images)])
    vectors = []
    for index, vector in enumerate(encoded.vectors):
        if isinstance(vector, VitrineError):
            is_text = index < len(texts)
            raise vector.at(f"texts[{index}]" if is_text else f"images[{index - len(texts)}]")
        vectors.append(vector.tolist())
    return VectorizeResponse(textVectors=vectors[: len(texts)], imageVectors=vectors[len(texts) :])


@router.get(
    "/meta",
    summary="What /vectorize runs, as Weaviate asks",
    dependencies=[READ],
    responses=fails(*WITH_KEY, model=WeaviateErrorResponse),
)
async def meta(request: Request) -> MetaResponse:
    """Describe the model behind `/vectorize`."""
    info = await _info(request)
    return MetaResponse(model=info.name, **asdict(info))


@router.get("/.well-known/live", summary="The process answers, as Weaviate asks", status_code=204)
async def well_known_live() -> None:
    """Answer as long as the process runs."""


@router.get("/.well-known/ready", summary="/vectorize can answer, as Weaviate asks", status_code=204)
async def well_known_ready(request: Request) -> None:
    """Answer when the model behind `/vectorize` does."""
    await _info(request)


async def _info(request: Request) -> EncoderInfo:
    return await (await services(request).embedder.encoder(None)).describe()
