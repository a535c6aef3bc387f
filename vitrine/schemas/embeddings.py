"""Schemas of embeddings and captions, in our shape and in those of OpenAI and Weaviate."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from vitrine.schemas.base import Base64Image, ImageUrl, RequestModel, ResponseModel, Text, WholeNumber

Modality = Literal["auto", "text", "image"]
EncodingFormat = Literal["float", "base64"]


class EmbedRequest(RequestModel):
    """One image or one text to embed."""

    text: Text | None = None
    image: Base64Image | None = None
    image_url: ImageUrl | None = None


class EmbedResponse(ResponseModel):
    """A unit vector of `dimension` float32 values."""

    model: str
    fingerprint: str
    dimension: int
    embedding: list[float]
    timings_ms: dict[str, float]
    request_id: str


def _refuse_tokens(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
        raise PydanticCustomError("tokens", "token arrays are not read, only strings: send the text itself")
    return value


def _inputs_tag(value: Any) -> str:
    return ":one" if isinstance(value, str) else ":many"


EmbeddingInputs = Annotated[
    Annotated[str, Tag(":one")]
    | Annotated[list[str], Field(min_length=1, max_length=2048), Tag(":many")],  # as many as OpenAI takes
    Discriminator(_inputs_tag),
    BeforeValidator(_refuse_tokens),
]


class EmbeddingsRequest(RequestModel):
    """Inputs to embed, in OpenAI's shape."""

    input: EmbeddingInputs = Field(description="A string or a list of them: texts, and images as data URIs.")
    model: str | None = Field(None, description="An encoder's name; left out: the configured default.")
    encoding_format: EncodingFormat = Field(
        "float", description="float: numbers; base64: float32 values, little endian, in base64."
    )
    dimensions: WholeNumber | None = Field(None, ge=1, description="Only the model's own dimension is taken.")
    user: str | None = Field(None, description="Taken for compatibility; nothing is done with it.")
    modality: Modality = Field("auto", description="What the inputs are; auto: data URIs are images.")
    fail: Literal["together", "alone"] = Field(
        "alone", description="What one bad input of several costs: its own embedding, or the request."
    )


class EmbeddingItem(ResponseModel):
    """A unit vector, as numbers or in base64, and the index of its input."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class FailedItem(ResponseModel):
    """An input that could not be embedded; `error` has the fields of an error of the service."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: None = None
    error: dict[str, Any]


class Usage(ResponseModel):
    """OpenAI's count of tokens; they are not counted here, so both are 0."""

    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingsResponse(ResponseModel):
    """Embeddings in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem | FailedItem]
    model: str
    fingerprint: str = Field(description="The version of the model; vectors compare within one version.")
    usage: Usage = Usage()
    id: str
    created: int = Field(description="Unix time in seconds.")


class CaptionRequest(RequestModel):
    """An image to describe."""

    image: Base64Image | None = None
    image_url: ImageUrl | None = None
    model: str | None = Field(
        None, description="An encoder's name; left out: the first that writes captions."
    )


class CaptionResponse(ResponseModel):
    """A caption; `fingerprint` is that of the model's captions, language model included."""

    model: str
    fingerprint: str
    caption: str
    timings_ms: dict[str, float]
    request_id: str


class VectorizeRequest(RequestModel):
    """Texts and images in Weaviate's shape; null, which Go writes for an empty list, is one."""

    texts: list[Text] | None = Field(None, max_length=2048)
    images: list[str] | None = Field(None, max_length=64, description="Base64.")


class VectorizeResponse(ResponseModel):
    """Unit vectors in the order of the texts and of the images."""

    textVectors: list[list[float]]
    imageVectors: list[list[float]]


class MetaResponse(ResponseModel):
    """The model behind `/vectorize`."""

    model: str
    family: str
    checkpoint: str
    fingerprint: str
    dimension: int
