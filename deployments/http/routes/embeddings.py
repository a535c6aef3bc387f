"""Routes of embeddings: one in our own shape, many in OpenAI's."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pybase64
from fastapi import APIRouter, Request, Response

from catalog.fetching.fetcher import Fetcher
from core.errors import InputTooLarge, InvalidInput, VitrineError
from core.types import Encoded, EncoderInput, Vector
from deployments.http.auth import READ
from deployments.http.errors import WITH_BODY, WITH_KEY, error_body, fails
from deployments.http.requests import (
    BodyRoute,
    File,
    Files,
    file_field,
    form,
    is_data_uri,
    read_image,
    read_images,
    services,
)
from deployments.http.responses import rounded
from vitrine.schemas.base import MAX_TEXT_CHARS
from vitrine.schemas.embeddings import (
    INFINITY_MODEL,
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbedRequest,
    EmbedResponse,
    EncodingFormat,
    Modality,
)

router = APIRouter(
    prefix="/v1", tags=["embeddings"], dependencies=[READ], responses=fails(*WITH_KEY), route_class=BodyRoute
)


@router.post(
    "/embed/{model}",
    summary="Embed one image or one text",
    openapi_extra=form({"image": file_field("An image file.")}, required=["image"]),
    response_model=EmbedResponse,
    responses=fails(*WITH_BODY, 404, 424),
)
async def embed(model: str, request: Request, body: EmbedRequest, files: Files) -> Response:
    """Return the unit vector of one image (a multipart file `image`, base64 or a URL) or of one text."""
    service = services(request)
    encoder = service.encoders.get(model)
    field, item = await _read_input(body, files, service.fetcher)
    encoded = await service.embedder.embed(encoder, [item])
    vector = encoded.vectors[0]
    if isinstance(vector, VitrineError):
        raise vector.at(field)
    found = {
        "model": model,
        "fingerprint": encoded.info.fingerprint,
        "dimension": encoded.info.dimension,
        "embedding": vector,
        "timings_ms": rounded(encoded.timings_ms),
        "request_id": request.state.request_id,
    }
    return Response(_as_json(found), media_type="application/json")


async def _read_input(
    body: EmbedRequest, files: Sequence[File], fetcher: Fetcher
) -> tuple[str, EncoderInput]:
    """Read the input, and the name of its field."""
    if files:
        return files[0]
    if [body.text, body.image, body.image_url].count(None) != 2:
        raise InvalidInput("give one of `text`, `image` and `image_url`").at("body")
    return (
        ("text", body.text)
        if body.text is not None
        else await read_image(body.image, body.image_url, fetcher)
    )


MAX_IMAGES = 64
INLINE_VALUES = 16 * 1024
"""Values of an answer that are written at once, which takes less than a millisecond; more are written in a thread."""


@router.post(
    "/embeddings",
    summary="Embed texts and images, as OpenAI does",
    response_model=EmbeddingsResponse,
    responses=fails(*WITH_BODY, 404, 424),
)
async def embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    """Return a unit vector for each input; clients of OpenAI and Infinity work unchanged.

    A base64 data URI is an image, every other string is text. With `modality` `image`, as in Infinity,
    each input is an image: a data URI, bare base64 or an http(s) URL; with `text` each is text. At most
    64 inputs may be images. A text has at most 32,000 characters; what is beyond the model's context is cut,
    and `usage` counts such texts.

    An input that cannot be embedded costs the others nothing: its entry has `"embedding": null` and an `error`.
    The request is refused, and `param` names the input, when nothing could be embedded, and with `fail` set to
    `together` as soon as one input could not, as in OpenAI's API.
    """
    service = services(request)
    encoder = await service.embedder.encoder(None if body.model == INFINITY_MODEL else body.model)
    info = await encoder.describe()
    if body.dimensions not in (None, 0, info.dimension):
        message = f"model {encoder.name!r} has {info.dimension} dimensions; leave this out or send that"
        raise InvalidInput(message).at("dimensions")
    given = [body.input] if isinstance(body.input, str) else body.input
    inputs = await _read_inputs(given, body.modality, service.fetcher)
    encoded = await service.embedder.embed(encoder, inputs)
    _refuse_failures(encoded, together=body.fail == "together")
    request_id = request.state.request_id
    values = len(encoded.vectors) * encoded.info.dimension
    # Thousands of vectors take a while to write, during which other requests must not wait.
    text = (
        _openai_json(encoded, body.encoding_format, request_id)
        if values <= INLINE_VALUES
        else await asyncio.to_thread(_openai_json, encoded, body.encoding_format, request_id)
    )
    return Response(text, media_type="application/json")


async def _read_inputs(
    given: Sequence[str], modality: Modality, fetcher: Fetcher
) -> list[EncoderInput | VitrineError]:
    images = [_is_image(item, modality) for item in given]
    if sum(images) > MAX_IMAGES:
        raise InputTooLarge(f"a request may hold at most {MAX_IMAGES} images").at("input")
    sources = [item for item, image in zip(given, images, strict=True) if image]
    read = iter(await read_images(sources, fetcher))
    return [next(read) if image else _text(item) for item, image in zip(given, images, strict=True)]


def _is_image(item: str, modality: Modality) -> bool:
    if modality == "auto":
        return is_data_uri(item) and ";base64," in item[:100].lower()
    return modality == "image"


def _text(item: str) -> str | VitrineError:
    if not item.strip():
        return InvalidInput("an input may not be empty or blank")
    if len(item) > MAX_TEXT_CHARS:
        return InvalidInput(f"a text may have at most {MAX_TEXT_CHARS:,} characters; this has {len(item):,}")
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


def _openai_json(encoded: Encoded, encoding: EncodingFormat, request_id: str) -> bytes:
    tokens = encoded.tokens
    return _as_json(
        {
            "object": "list",
            "data": [
                _embedding_item(index, each, encoding, request_id)
                for index, each in enumerate(encoded.vectors)
            ],
            "model": encoded.info.name,
            "fingerprint": encoded.info.fingerprint,
            "usage": {
                "prompt_tokens": tokens.tokens,
                "total_tokens": tokens.tokens,
                "truncated_inputs": tokens.cut_texts,
            },
            "id": f"embd-{request_id}",
            "created": int(time.time()),
        }
    )


def _embedding_item(
    index: int, answer: Vector | VitrineError, encoding: EncodingFormat, request_id: str
) -> dict[str, Any]:
    item = {"object": "embedding", "index": index}
    if isinstance(answer, VitrineError):
        return item | {"embedding": None} | error_body(answer.at(f"input[{index}]"), request_id)
    if encoding == "base64":
        return item | {"embedding": pybase64.b64encode(np.asarray(answer, "<f4").tobytes()).decode()}
    return item | {"embedding": answer}


def _as_json(found: dict[str, Any]) -> bytes:
    """Write JSON with vectors in it, each value in the fewest digits that are read as the same float32."""
    return orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)
