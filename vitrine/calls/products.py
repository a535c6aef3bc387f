"""Products and their pictures."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vitrine.answers import Attributes, Product, Written
from vitrine.call import Call, content, given, nothing, reader
from vitrine.calls.paths import path
from vitrine.pictures import Picture, encoded

_WRITTEN, _PRODUCT, _PRODUCTS = reader(Written), reader(Product), reader(list[Product])
_ATTRIBUTES = reader(Attributes)


def put_product(
    product_id: str,
    *,
    title: str = "",
    description: str = "",
    attributes: Mapping[str, Any] | None = None,
    pictures: Sequence[Picture] | None = None,
) -> Call[Written]:
    """Create or replace a product; it is durable when this returns.

    `pictures` are paths, bytes or URLs, in order. None keeps those that the product has, an empty list
    removes them.

    Raises:
        InvalidRequest: a picture cannot be read, a limit is exceeded …; `param` names the field.
        FetchFailed: a server behind a URL failed.
        OSError: a picture's file cannot be read.
    """
    body: dict[str, Any] = {"title": title, "description": description, "attributes": dict(attributes or {})}
    if pictures is not None:
        body["images"] = [encoded(picture) for picture in pictures]
    return Call("PUT", path("products", product_id), _WRITTEN, json=body)


def product(product_id: str) -> Call[Product]:
    """Read a product; NotFound when there is none."""
    return Call("GET", path("products", product_id), _PRODUCT)


def product_page(limit: int = 100, after: str | None = None) -> Call[list[Product]]:
    """Read a page of products, by id; `after` is the last id of the page before."""
    return Call("GET", path("products"), _PRODUCTS, params=given(limit=limit, after=after))


def delete_product(product_id: str) -> Call[None]:
    """Remove a product, its pictures and its vectors; NotFound when there is none."""
    return Call("DELETE", path("products", product_id), nothing)


def image(image_id: str) -> Call[bytes]:
    """Read a picture file as it was sent; NotFound when there is none."""
    return Call("GET", path("images", image_id), content)


def thumbnail(image_id: str, size: Literal["small", "large"] = "small") -> Call[bytes]:
    """Read a picture as WebP with at most 320 or 960 pixels a side; NotFound when there is none."""
    return Call("GET", path("images", image_id, "thumbnail"), content, params={"size": size})


def attributes() -> Call[Attributes]:
    """Say which attributes products have, and which values: what a filter can ask for."""
    return Call("GET", path("attributes"), _ATTRIBUTES)
