"""Embeddings in the shape of OpenAI's API, and of Infinity's, which adds pictures to it."""

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from catalog.fetching.fetcher import Fetcher
from core.errors import InputTooLarge, InvalidInput, VitrineError
from core.types import Encoded, EncoderInput
from deployments.api.bodies import is_data_uri
from deployments.api.embeddings_shape import EmbeddingsBody, EmbeddingsView, Modality
from deployments.api.fails import fails
from deployments.api.pictures import read_pictures
from deployments.api.taken import Taken
from deployments.scopes import READ
from deployments.services import services

MAX_PICTURES = 64
MAX_WORDS_LENGTH = 2000

router = APIRouter(prefix="/v1", tags=["embeddings"], dependencies=[READ])
INPUTS = Taken(EmbeddingsBody)


@router.post(
    "/embeddings",
    summary="Embed texts and pictures, as OpenAI does",
    response_model=EmbeddingsView,
    openapi_extra=INPUTS.described,
    responses=fails(404, 424),
)
async def embeddings(request: Request) -> Response:
    """Return a unit vector for each input; OpenAI's clients work unchanged.

    A base64 data URI is a picture, every other string is text. With `modality` `image`, as in Infinity,
    each input is a picture: a data URI, bare base64 or an http(s) URL; with `text` each is text. At most
    64 inputs may be pictures. An input that cannot be embedded costs the others nothing: its entry has
    `"embedding": null` and an `error`. The request is refused, and `param` names the input, when nothing
    could be embedded, and with `fail` set to `together` as soon as one input could not, as in OpenAI's
    API.
    """
    service = services(request)
    body = await INPUTS.json(request)
    encoder = await service.embedder.encoder(body.model)
    info = await encoder.describe()
    if body.dimensions not in (None, info.dimension):
        message = f"model {encoder.name!r} has {info.dimension} dimensions; leave this out or send that"
        raise InvalidInput(message).at("dimensions")
    given = [body.input] if isinstance(body.input, str) else body.input
    encoded = await service.embedder.embed(encoder, await _read(given, body.modality, service.fetcher))
    _refuse_failures(encoded, together=body.fail == "together")
    request_id = request.state.request_id
    # Thousands of vectors take a while to write, during which other requests must not wait.
    view = await asyncio.to_thread(EmbeddingsView.of, encoded, body.encoding_format, request_id)
    return Response(await asyncio.to_thread(view.model_dump_json), media_type="application/json")


async def _read(
    given: Sequence[str], modality: Modality, fetcher: Fetcher
) -> list[EncoderInput | VitrineError]:
    pictures = [_is_picture(item, modality) for item in given]
    if sum(pictures) > MAX_PICTURES:
        raise InputTooLarge(f"a request may hold at most {MAX_PICTURES} pictures").at("input")
    sources = [item for item, picture in zip(given, pictures, strict=True) if picture]
    read = iter(await read_pictures(sources, fetcher))
    return [next(read) if picture else _words(item) for item, picture in zip(given, pictures, strict=True)]


def _is_picture(item: str, modality: Modality) -> bool:
    if modality == "auto":
        return is_data_uri(item) and ";base64," in item[:100].lower()
    return modality == "image"


def _words(item: str) -> str | VitrineError:
    if not item.strip():
        return InvalidInput("an input may not be empty or blank")
    if len(item) > MAX_WORDS_LENGTH:
        return InvalidInput(f"a text may have at most {MAX_WORDS_LENGTH} characters; this has {len(item)}")
    return item


def _refuse_failures(encoded: Encoded, together: bool) -> None:
    failures = [(i, item) for i, item in enumerate(encoded.vectors) if isinstance(item, VitrineError)]
    if not failures or (not together and len(failures) < len(encoded.vectors)):
        return
    index, error = failures[0]
    if len(encoded.vectors) > 1:
        count = f"{len(failures)} of {len(encoded.vectors)} inputs failed"
        error = error.reworded(f"{error.message} ({count})")
    raise error.at(f"input[{index}]")
