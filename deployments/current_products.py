"""What the catalog says now of products that a search has found."""

import asyncio
from collections.abc import Sequence

from catalog.products import SqlProducts
from core.filters import Filter, matches
from core.types import Hit, Product


class CurrentProducts:
    """Joins hits with the catalog; one that the catalog no longer supports is not shown."""

    def __init__(self, products: SqlProducts) -> None:
        self._products = products

    async def of(
        self, hits: Sequence[Hit], filter: Filter | None
    ) -> tuple[list[tuple[Hit, Product]], list[str]]:
        """Return the hits with their products, in order, and the ids of those that are gone."""
        products = await asyncio.to_thread(self._products.get_many, [hit.product_id for hit in hits])
        kept: list[tuple[Hit, Product]] = []
        gone: list[str] = []
        for hit in hits:
            product = products.get(hit.product_id)
            if product is not None and _still_true(hit, product, filter):
                kept.append((hit, product))
            else:
                gone.append(hit.product_id)
        return kept, gone


def _still_true(hit: Hit, product: Product, filter: Filter | None) -> bool:
    has_picture = any(picture.image_id == hit.image_id for picture in product.pictures)
    return has_picture and (filter is None or matches(filter, product.attributes))
