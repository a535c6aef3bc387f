"""What is in the catalog already, as parts of a query."""

import asyncio

from catalog.opening import Catalog
from core.errors import Conflict
from core.search import StoredPart
from core.types import row_key


class StoredParts:
    """Products and pictures of the catalog to search by; their vectors are in the collections."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def product(self, product_id: str) -> StoredPart:
        """Refer to a product of the catalog, by all its pictures, as a part of a query.

        Raises:
            NotFound: there is no such product.
            Conflict: it has no picture.
        """
        product = await asyncio.to_thread(self._catalog.products.get, product_id)
        if not product.pictures:
            raise Conflict(f"product {product_id!r} has no picture to search by")
        keys = tuple(row_key(picture.image_id, picture.revision) for picture in product.pictures)
        return StoredPart(f"product {product_id!r}", product_id, keys)

    async def picture(self, image_id: str) -> StoredPart:
        """Refer to one picture of the catalog as a part of a query.

        Raises:
            NotFound: there is no such picture.
        """
        picture = await asyncio.to_thread(self._catalog.products.picture, image_id)
        key = row_key(picture.image_id, picture.revision)
        return StoredPart(f"picture {image_id!r}", picture.product_id, (key,))
