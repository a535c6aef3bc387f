"""The JSON of requests; unknown fields are refused."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


class Body(BaseModel):
    """A request body: unknown fields are refused, and values of another type than the field's."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("words", "give words: this text is blank")
    return text


Words = Annotated[
    str,
    Field(min_length=1, max_length=2000, json_schema_extra={"pattern": r"\S"}),
    AfterValidator(_refuse_blank),
]


class ProductBody(Body):
    """A product to store."""

    title: str = ""
    description: str = ""
    attributes: dict[str, Any] = {}
    images: list[str] | None = Field(
        None,
        description="Pictures as base64, data URIs or http(s) URLs, in order; "
        "left out: keep those the product has.",
    )


class EmbedBody(Body):
    """One picture or one text to embed."""

    text: Words | None = None
    image: str | None = Field(None, min_length=1, description="Base64 or a data URI.")
    image_url: str | None = Field(None, min_length=1, description="Where the picture is: http or https.")
