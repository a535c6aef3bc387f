"""Routes of embeddings: one in our own shape, many in OpenAI's."""

import asyncio
import base64
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from catalog.fetching.fetcher import Fetcher
from core.errors import InputTooLarge, InvalidInput, VitrineError
from core.types import Encoded, EncoderInput, Vector, WholeNumber
from deployments.http.auth import READ
from deployments.http.bodies import Form, Taken, decode_base64, files_of, is_data_uri
from deployments.http.errors import error_body, fails
from deployments.http.inputs import fetch_image, read_images
from deployments.http.schemas import Body, EmbedBody, EmbeddingView
from deployments.services.assembly import Services, services

router = APIRouter(prefix="/v1", tags=["embeddings"], dependencies=[READ])
INPUT = Taken(EmbedBody, Form(files={"image": "An image file."}, required=("image",)))


@router.post(
    "/embed/{model}",
    summary="Embed one image or one text",
    openapi_extra=INPUT.described,
    responses=fails(404, 424),
)
async def embed(model: str, request: Request) -> EmbeddingView:
    """Return the unit vector of one image (a multipart file `image`, base64 or a URL) or of one text."""
    service = services(request)
    encoder = service.encoders.get(model)
    field, item = await _read_input(request, service)
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


async def _read_input(request: Request, service: Services) -> tuple[str, EncoderInput]:
    """Read the input, and the name of its field."""
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
    return "image_url", await fetch_image(str(body.image_url), service.fetcher, "image_url")


Modality = Literal["auto", "text", "image"]
Encoding = Literal["float", "base64"]
MAX_INPUTS = 2048
"""OpenAI's limit."""


def _refuse_tokens(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
        raise PydanticCustomError("tokens", "token arrays are not read, only strings: send the text itself")
    return value


def _kind_of_input(value: Any) -> str:
    return ":one" if isinstance(value, str) else ":many"


Inputs = Annotated[
    Annotated[str, Tag(":one")]
    | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS), Tag(":many")],
    Discriminator(_kind_of_input),
    BeforeValidator(_refuse_tokens),
]


class EmbeddingsBody(Body):
    """What to embed, and how to write it."""

    input: Inputs = Field(description="A string or a list of them: texts, and images as data URIs.")
    model: str | None = Field(None, description="An encoder's name; left out: the configured default.")
    encoding_format: Encoding = Field(
        "float", description="float: numbers; base64: float32 values, little endian, in base64."
    )
    dimensions: WholeNumber | None = Field(None, ge=1, description="Only the model's own dimension is taken.")
    user: str | None = Field(None, description="Taken for compatibility; nothing is done with it.")
    modality: Modality = Field("auto", description="What the inputs are; auto: data URIs are images.")
    fail: Literal["together", "alone"] = Field(
        "alone", description="What one bad input of several costs: its own embedding, or the request."
    )


class EmbeddingItem(BaseModel):
    """One embedding: numbers, or base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class FailedItem(BaseModel):
    """An input that could not be embedded, and why."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: None = None
    error: dict[str, Any]


class Usage(BaseModel):
    """OpenAI's count of tokens; they are not counted here, so both are 0."""

    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingsView(BaseModel):
    """Embeddings in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem | FailedItem]
    model: str
    fingerprint: str = Field(description="The version of the model; vectors compare within one version.")
    usage: Usage = Usage()
    id: str
    created: int = Field(description="Unix time in seconds.")

    @classmethod
    def of(cls, encoded: Encoded, encoding: Encoding, request_id: str) -> "EmbeddingsView":
        """Show what an encoder answered."""
        return cls(
            data=[
                _embedding_item(index, each, encoding, request_id)
                for index, each in enumerate(encoded.vectors)
            ],
            model=encoded.info.name,
            fingerprint=encoded.info.fingerprint,
            id=f"embd-{request_id}",
            created=int(time.time()),
        )


def _embedding_item(
    index: int, answer: Vector | VitrineError, encoding: Encoding, request_id: str
) -> EmbeddingItem | FailedItem:
    if isinstance(answer, VitrineError):
        return FailedItem(index=index, **error_body(answer.at(f"input[{index}]"), request_id))
    if encoding == "base64":
        text = base64.b64encode(np.asarray(answer, "<f4").tobytes()).decode()
        return EmbeddingItem(index=index, embedding=text)
    return EmbeddingItem(index=index, embedding=answer.tolist())


MAX_IMAGES = 64
MAX_WORDS_LENGTH = 2000

INPUTS = Taken(EmbeddingsBody)


@router.post(
    "/embeddings",
    summary="Embed texts and images, as OpenAI does",
    response_model=EmbeddingsView,
    openapi_extra=INPUTS.described,
    responses=fails(404, 424),
)
async def embeddings(request: Request) -> Response:
    """Return a unit vector for each input; OpenAI's clients work unchanged.

    A base64 data URI is an image, every other string is text. With `modality` `image`, as in Infinity,
    each input is an image: a data URI, bare base64 or an http(s) URL; with `text` each is text. At most
    64 inputs may be images. An input that cannot be embedded costs the others nothing: its entry has
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
    encoded = await service.embedder.embed(encoder, await _read_inputs(given, body.modality, service.fetcher))
    _refuse_failures(encoded, together=body.fail == "together")
    request_id = request.state.request_id
    # In a thread: writing thousands of vectors takes long, and other requests must not wait.
    view = await asyncio.to_thread(EmbeddingsView.of, encoded, body.encoding_format, request_id)
    return Response(await asyncio.to_thread(view.model_dump_json), media_type="application/json")


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
