"""Schemas of embeddings and captions, in our shape and in those of OpenAI and Weaviate."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from vitrine.schemas.base import Base64Image, ImageUrl, LongText, RequestModel, ResponseModel, WholeNumber

Modality = Literal["auto", "text", "image"]
EncodingFormat = Literal["float", "base64"]


class EmbedRequest(RequestModel):
    """One image or one text to embed."""

    text: LongText | None = None
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
        raise PydanticCustomError("tokens", _NO_TOKENS)
    return value


_NO_TOKENS = (
    "token ids mean nothing here, since each model has a tokenizer of its own: send the texts themselves; "
    "LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False"
)


def _inputs_tag(value: Any) -> str:
    return ":one" if isinstance(value, str) else ":many"


INFINITY_MODEL = "default/not-specified"
"""Model that Infinity's clients send by default."""
_UNUSED = "Taken since clients of other services send it; it changes nothing."
EmbeddingInputs = Annotated[
    Annotated[str, Tag(":one")]
    | Annotated[list[str], Field(min_length=1, max_length=2048), Tag(":many")],  # as many as OpenAI takes
    Discriminator(_inputs_tag),
    BeforeValidator(_refuse_tokens),
]


class EmbeddingsRequest(RequestModel):
    """Inputs to embed, in OpenAI's shape."""

    input: EmbeddingInputs = Field(description="A string or a list of them: texts, and images as data URIs.")
    model: str | None = Field(
        None, description=f"An encoder's name; left out or `{INFINITY_MODEL}`: the configured default."
    )
    encoding_format: EncodingFormat = Field(
        "float", description="float: numbers; base64: float32 values, little endian, in base64."
    )
    dimensions: WholeNumber | None = Field(
        None, ge=0, description="The model's own dimension; no other is taken, and 0 is as left out."
    )
    user: str | None = Field(None, description=_UNUSED)
    input_type: str | None = Field(None, description=_UNUSED)
    truncate: str | bool | None = Field(
        None, description=f"{_UNUSED} Texts are cut behind the last token that the model reads."
    )
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
    """Count of tokens in OpenAI's shape."""

    prompt_tokens: int = Field(
        description="Tokens of the texts that the model has read, special ones included; images count none."
    )
    total_tokens: int = Field(description="The same number.")
    truncated_inputs: int = Field(
        description="Number of texts that are longer than the model's context and were cut there."
    )


class EmbeddingsResponse(ResponseModel):
    """Embeddings in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem | FailedItem]
    model: str
    fingerprint: str = Field(description="The version of the model; vectors compare within one version.")
    usage: Usage
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

    texts: list[LongText] | None = Field(None, max_length=2048)
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
