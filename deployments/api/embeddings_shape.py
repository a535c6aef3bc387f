"""The JSON of `POST /v1/embeddings`: OpenAI's, with Infinity's `modality` and our `fail`."""

import base64
import time
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from core.errors import VitrineError
from core.types import Encoded, Vector, WholeNumber
from deployments.api.requests import Body
from deployments.errors import error_body

Modality = Literal["auto", "text", "image"]
Encoding = Literal["float", "base64"]
MAX_INPUTS = 2048
"""As many as OpenAI takes."""


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

    input: Inputs = Field(description="A string or a list of them: texts, and pictures as data URIs.")
    model: str | None = Field(None, description="An encoder's name; left out: the configured default.")
    encoding_format: Encoding = Field(
        "float", description="float: numbers; base64: float32 values, little endian, in base64."
    )
    dimensions: WholeNumber | None = Field(None, ge=1, description="Only the model's own dimension is taken.")
    user: str | None = Field(None, description="Taken for compatibility; nothing is done with it.")
    modality: Modality = Field("auto", description="What the inputs are; auto: data URIs are pictures.")
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
            data=[_item(index, each, encoding, request_id) for index, each in enumerate(encoded.vectors)],
            model=encoded.info.name,
            fingerprint=encoded.info.fingerprint,
            id=f"embd-{request_id}",
            created=int(time.time()),
        )


def _item(
    index: int, answer: Vector | VitrineError, encoding: Encoding, request_id: str
) -> EmbeddingItem | FailedItem:
    if isinstance(answer, VitrineError):
        return FailedItem(index=index, **error_body(answer.at(f"input[{index}]"), request_id))
    if encoding == "base64":
        text = base64.b64encode(np.asarray(answer, "<f4").tobytes()).decode()
        return EmbeddingItem(index=index, embedding=text)
    return EmbeddingItem(index=index, embedding=answer.tolist())
