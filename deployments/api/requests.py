"""The JSON of requests; unknown fields are refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, Tag


class Body(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


Words = Annotated[str, Field(min_length=1, max_length=2000)]


class TextPart(Body):
    """Words."""

    type: Literal["text"]
    text: Words
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class ImagePart(Body):
    """A picture: base64 or a data URI, or in a multipart request the name of the form field with the file."""

    type: Literal["image"]
    image: str | None = Field(None, min_length=1, description="Base64 or a data URI.")
    upload: str | None = Field(None, min_length=1, description="Name of a form field that holds a file.")
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class ProductPart(Body):
    """A product of the catalog, by all its pictures."""

    type: Literal["product_id"]
    product_id: str = Field(min_length=1)
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


def _kind_of_part(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f":{kind}"


def _kind_of_query(value: Any) -> str:
    return ":words" if isinstance(value, str) else ":parts"


# Tags that begin with a colon cannot be taken for field names when an error's location is shown.
Part = Annotated[
    Annotated[TextPart, Tag(":text")]
    | Annotated[ImagePart, Tag(":image")]
    | Annotated[ProductPart, Tag(":product_id")],
    Discriminator(
        _kind_of_part,
        custom_error_type="part",
        custom_error_message="a part is an object with `type`: text, image or product_id",
    ),
]
Parts = Annotated[
    Annotated[Words, Tag(":words")] | Annotated[list[Part], Tag(":parts")], Discriminator(_kind_of_query)
]


class SearchBody(Body):
    """A search."""

    query: Parts = Field([], description="Words, or weighted parts.")
    model: str = Field("ensemble", description="An encoder's name, or `ensemble`.")
    weights: dict[str, Annotated[FiniteFloat, Field(ge=0)]] | None = Field(
        None, description="Ensemble only: weights of members, replacing the configured ones."
    )
    fusion: Literal["rrf", "weighted"] | None = Field(None, description="Ensemble only: how lists are fused.")
    limit: int = Field(10, ge=1, description="Distinct products to return.")
    offset: int = Field(0, ge=0, description="Products to skip.")
    filter: dict[str, Any] | None = Field(None, description="Conditions on attributes.")
    exclude: list[str] = Field([], max_length=1000, description="Products to leave out.")


class ProductBody(Body):
    """A product to store."""

    title: str = ""
    description: str = ""
    attributes: dict[str, Any] = {}
    images: list[str] | None = Field(
        None, description="Pictures as base64 or data URIs, in order; left out: keep those the product has."
    )


class EmbedBody(Body):
    """One picture or one text to embed."""

    text: Words | None = None
    image: str | None = Field(None, min_length=1, description="Base64 or a data URI.")
