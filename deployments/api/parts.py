"""The parts of a query as JSON: words, pictures, and what the catalog holds already."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, FiniteFloat, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from deployments.api.requests import Body, Words

_ROUNDING = 1e-6
"""How far the rounding of a caller's pixels may carry a box beyond the edge."""


class TextPart(Body):
    """Words."""

    type: Literal["text"]
    text: Words
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class BoxBody(Body):
    """A part of a picture as a viewer shows it, in shares of its width and height, from the top left."""

    x: float = Field(ge=0, lt=1, description="Left edge.")
    y: float = Field(ge=0, lt=1, description="Upper edge.")
    width: float = Field(gt=0, le=1)
    height: float = Field(gt=0, le=1)

    @field_validator("width", "height")
    @classmethod
    def _end_within_the_picture(cls, length: float, info: ValidationInfo) -> float:
        edge = "x" if info.field_name == "width" else "y"
        start: float = info.data.get(edge, 0.0)
        if start + length > 1 + _ROUNDING:
            raise PydanticCustomError(
                "box", f"the box leaves the picture: {edge} + {info.field_name} exceeds 1"
            )
        return min(length, 1 - start)


class ImagePart(Body):
    """A picture: base64 or a data URI, or in a multipart request the name of the form field with the file."""

    type: Literal["image"]
    image: str | None = Field(None, min_length=1, description="Base64 or a data URI.")
    upload: str | None = Field(None, min_length=1, description="Name of a form field that holds a file.")
    box: BoxBody | None = Field(
        None, description="The part of the picture that is meant; left out: all of it."
    )
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class ImageUrlPart(Body):
    """A picture behind a URL."""

    type: Literal["image_url"]
    image_url: str = Field(min_length=1, description="Where the picture is: http or https.")
    box: BoxBody | None = Field(
        None, description="The part of the picture that is meant; left out: all of it."
    )
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class ProductPart(Body):
    """A product of the catalog, by all its pictures."""

    type: Literal["product_id"]
    product_id: str = Field(min_length=1)
    weight: FiniteFloat = Field(1.0, description="Negative pushes away.")


class PicturePart(Body):
    """One picture of a product of the catalog."""

    type: Literal["image_id"]
    image_id: str = Field(min_length=1)
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
    | Annotated[ImageUrlPart, Tag(":image_url")]
    | Annotated[ProductPart, Tag(":product_id")]
    | Annotated[PicturePart, Tag(":image_id")],
    Discriminator(
        _kind_of_part,
        custom_error_type="part",
        custom_error_message="a part is an object with `type`: text, image, image_url, product_id or image_id",
    ),
]
Parts = Annotated[
    Annotated[Words, Tag(":words")] | Annotated[list[Part], Tag(":parts")], Discriminator(_kind_of_query)
]
