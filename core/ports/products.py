"""What the catalog knows of products."""

from collections.abc import Sequence
from typing import Protocol

from core.types import Attributes, NewPicture, Picture, Product


class Products(Protocol):
    """The catalog's products. Blocking; safe to call from several threads and processes."""

    def put(
        self,
        product_id: str,
        title: str,
        description: str,
        attributes: Attributes,
        pictures: Sequence[NewPicture] | None,
    ) -> tuple[Product, bool]:
        """Create or replace a product durably; returns it and whether it is new.

        `pictures=None` keeps the pictures it has. A picture that stays keeps its image id; its revision
        changes only when its place in the product, the attributes or its bytes change, so that a
        repeated identical put costs no new embedding.
        """
        ...

    def get(self, product_id: str) -> Product:
        """Read one product; NotFound when missing."""
        ...

    def get_many(self, product_ids: Sequence[str]) -> dict[str, Product]:
        """Read those of the products that exist."""
        ...

    def page(self, limit: int, after: str | None = None) -> list[Product]:
        """Read products ordered by id, those with an id greater than `after`."""
        ...

    def delete(self, product_id: str) -> None:
        """Remove a product and its pictures durably; NotFound when missing."""
        ...

    def picture(self, image_id: str) -> Picture:
        """Read one picture; NotFound when missing."""
        ...

    def counts(self) -> tuple[int, int]:
        """Count products and pictures."""
        ...
