"""Bases and field types of the schemas, and the schema of errors.

The service refuses unknown fields of a request. The client ignores unknown fields of a response, so that it
works with a newer service.
"""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class RequestModel(BaseModel):
    """Base of request bodies: unknown fields and values of another type are refused; null is as left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in values.items() if value is not None or name not in optional}


class ResponseModel(BaseModel):
    """Base of responses: unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank_text", "this text is blank")
    return text


def _to_integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


MAX_TEXT_CHARS = 32_000
S = TypeVar("S", bound=str)
_NotBlank = Annotated[
    S, Field(min_length=1, json_schema_extra={"pattern": r"\S"}), AfterValidator(_refuse_blank)
]
Text = _NotBlank[Annotated[str, Field(max_length=2000)]]
"""A text to search by."""
LongText = _NotBlank[Annotated[str, Field(max_length=MAX_TEXT_CHARS)]]
"""A text to embed; what is longer than the model's context is cut there."""
WholeNumber = Annotated[int, BeforeValidator(_to_integer)]
"""An integer as JSON Schema defines it: 3.0 is one, and some languages write it so."""
ImageUrl = Annotated[str, Field(min_length=1, description="Where the image is: http or https.")]
Base64Image = Annotated[str, Field(min_length=1, description="Base64 or a data URI.")]


class ErrorDetail(ResponseModel):
    """An error of the service."""

    type: str = Field(description="The kind of error, for programs.")
    message: str = Field(description="What was wrong, and what would be right, for people.")
    param: str | None = Field(description="The field, parameter or header that the error is about.")
    request_id: str = Field(description="The id under which the logs hold the request.")


class ErrorResponse(ResponseModel):
    """The one shape of errors."""

    error: ErrorDetail


class WeaviateErrorResponse(ResponseModel):
    """An error as Weaviate reads it; authentication and limits answer Weaviate in the shape of other calls."""

    error: str | ErrorDetail
