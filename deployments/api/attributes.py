"""What products can be filtered by."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from deployments.attributes import MAX_VALUES, Attribute
from deployments.scopes import READ
from deployments.services import services

router = APIRouter(prefix="/v1", tags=["search"], dependencies=[READ])


class ValueView(BaseModel):
    """A value, and how many of the products that were read have it."""

    value: bool | str
    products: int


class AttributeView(BaseModel):
    """An attribute. Strings, true and false stand in `values`; numbers lie between `minimum` and `maximum`."""

    name: str
    products: int
    values: list[ValueView] = Field(description="The most frequent first; elements of lists count each.")
    more_values: bool = Field(description="Whether there are further values.")
    minimum: float | None
    maximum: float | None

    @classmethod
    def of(cls, attribute: Attribute) -> "AttributeView":
        """Show an attribute."""
        shown = sorted(attribute.values.items(), key=lambda each: (-each[1], str(each[0])))[:MAX_VALUES]
        return cls(
            name=attribute.name,
            products=attribute.products,
            values=[ValueView(value=value, products=count) for value, count in shown],
            more_values=len(attribute.values) > MAX_VALUES,
            minimum=attribute.minimum,
            maximum=attribute.maximum,
        )


class AttributesView(BaseModel):
    """The attributes that products have, the most frequent first."""

    products_read: int = Field(
        description="Products that were read: all with pictures, or a share of a large catalogue."
    )
    attributes: list[AttributeView]


@router.get("/attributes", summary="What products can be filtered by")
async def attributes(request: Request) -> AttributesView:
    """Sum up the attributes of products that have pictures, as they were at most half a minute ago.

    At most 50 attributes and 50 values of each, from at most 2,000 products.
    """
    summary = await services(request).attributes.current()
    views = [AttributeView.of(each) for each in summary.attributes]
    return AttributesView(products_read=summary.products_read, attributes=views)
