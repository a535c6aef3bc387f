"""Schemas of products, their images and their attributes."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from vitrine.schemas.base import RequestModel, ResponseModel

IndexState = Literal["indexed", "pending", "failed"]
ThumbnailSize = Literal["small", "large"]


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
