"""Schemas of products, their images and their attributes."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from vitrine.schemas.base import ErrorDetail, RequestModel, ResponseModel

IndexState = Literal["indexed", "pending", "failed"]
ThumbnailSize = Literal["small", "large"]
MAX_OPERATIONS = 1000
"""Most operations of one batch."""


class PutProductRequest(RequestModel):
    """A product to store."""

    title: str = ""
    description: str = ""
    attributes: dict[str, Any] = Field({})
    images: list[str] | None = Field(
        None,
        description="Images as base64, data URIs or http(s) URLs, in order; "
        "left out: keep those the product has.",
    )


def _without_defaults(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():
        field.pop("default", None)


def _refuse_images(_: Any) -> Any:
    raise PydanticCustomError("images", "a patch leaves the images as they are; replace them by a put")


class PatchProductRequest(BaseModel):
    """A JSON merge patch (RFC 7396) of a product: what is left out stays, and null removes."""

    # A null in a patch is not as left out, so no field has a default that a caller could send.
    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_without_defaults)

    title: str | None = None
    description: str | None = None
    attributes: dict[str, Any] | None = Field(
        None, description="Attributes to set; those that are null are removed, all others stay."
    )
    images: SkipJsonSchema[Annotated[None, BeforeValidator(_refuse_images)]] = None


class PutOperation(PutProductRequest):
    """Create or replace a product, as `PUT /v1/products/{product_id}` does."""

    op: Literal["put"]
    product_id: str


class PatchOperation(PatchProductRequest):
    """Change some fields of a product, as `PATCH /v1/products/{product_id}` does."""

    op: Literal["patch"]
    product_id: str


class DeleteOperation(RequestModel):
    """Delete a product."""

    op: Literal["delete"]
    product_id: str


def _op_tag(value: Any) -> str:
    return f":{value.get('op')}" if isinstance(value, dict) else ""


# Tags begin with a colon, so that an error's location tells them from field names.
ProductOperation = Annotated[
    Annotated[PutOperation, Tag(":put")]
    | Annotated[PatchOperation, Tag(":patch")]
    | Annotated[DeleteOperation, Tag(":delete")],
    Discriminator(
        _op_tag,
        custom_error_type="op",
        custom_error_message="an operation is an object with `op`: put, patch or delete",
    ),
]


class ProductBatchRequest(RequestModel):
    """Operations on products; each succeeds or fails alone. Those on one product apply in order."""

    operations: list[ProductOperation] = Field(min_length=1, max_length=MAX_OPERATIONS)


class ProductImage(ResponseModel):
    """An image of a product; `url` is the path of its file on the service."""

    image_id: str
    url: str
    media_type: str
    width: int
    height: int
    bytes: int
    revision: int
    caption: str | None = Field(description="What a model has written about the image, if any has.")


class Product(ResponseModel):
    """A product."""

    product_id: str
    title: str
    description: str
    attributes: dict[str, Any]
    images: list[ProductImage]
    revision: int
    created_at: datetime
    updated_at: datetime


class IndexStatus(ResponseModel):
    """The state of a product in a model's index, and of each of its images."""

    state: IndexState
    images: dict[str, IndexState]


class PutProductResponse(ResponseModel):
    """A stored product; `index` has its state in the index of each model."""

    product: Product
    created: bool
    index: dict[str, IndexStatus]


class OperationResult(ResponseModel):
    """The outcome of one operation of a batch: `index` of what was put or patched, or an `error`."""

    product_id: str | None = Field(description="Null where the operation names no product.")
    status: int = Field(description="The HTTP status that the operation alone would have.")
    index: dict[str, IndexState] | None = Field(
        None, description="For each model the worst state of the product's images."
    )
    error: ErrorDetail | None = None


class ProductBatchResponse(ResponseModel):
    """The outcomes of a batch's operations, in their order."""

    results: list[OperationResult]


class AttributeValue(ResponseModel):
    """A value of an attribute, and the number of products that have it."""

    value: bool | str
    products: int


class Attribute(ResponseModel):
    """An attribute. Strings, true and false are in `values`; numbers lie between `minimum` and `maximum`."""

    name: str
    products: int
    values: list[AttributeValue] = Field(description="The most frequent first; elements of lists count each.")
    more_values: bool = Field(description="Whether there are further values.")
    minimum: float | None
    maximum: float | None


class AttributesResponse(ResponseModel):
    """The attributes that products have, the most frequent first."""

    products_read: int = Field(
        description="Products that were read: all with images, or a share of a large catalog."
    )
    attributes: list[Attribute]
