"""Queries for a shop without labels: changed pictures of the catalog, which must find their own product."""

import hashlib
import heapq
import logging
from collections.abc import Collection, Iterator

import numpy as np

from catalog.opening import Catalog
from core.errors import InvalidInput, NotFound
from core.ports import Products
from core.types import Picture
from jobs.evaluation.augmentation import changed
from jobs.evaluation.queries import JudgedQuery
from models.images import ImageLimits, decoding

logger = logging.getLogger(__name__)

KIND = "changed pictures"
_PAGE = 1000


def changed_pictures(
    catalog: Catalog,
    limits: ImageLimits,
    count: int,
    seed: int,
    grade: int,
    among: Collection[str] | None = None,
) -> list[JudgedQuery]:
    """Draw up to `count` pictures, at most one a product, and change them; the same seed gives the same bytes.

    Products are drawn of the catalog, or of those `among` it, by a hash of their ids, so that most of the
    queries stay when the catalog grows. Each query has its own product, with `grade`, as its only answer. A
    picture whose file is missing, broken or beyond the `limits` is passed over. Twins of a product that show
    the very same picture count as wrong: compare models by this, but do not take it for what shoppers will see.
    """
    drawn = heapq.nsmallest(
        count, _pictures(catalog.products, among), key=lambda found: draw(seed, found.product_id)
    )
    queries = []
    for picture in drawn:
        rng = np.random.default_rng((seed, *draw(seed, picture.image_id)))
        try:
            with decoding(catalog.blobs.get(picture.sha256), limits) as decoded:
                file, _ = changed(decoded.image, rng)
        except (InvalidInput, NotFound) as error:
            logger.warning("picture %s is no query: %s", picture.image_id, error.message)
            continue
        queries.append(JudgedQuery(picture.image_id, KIND, None, file, {picture.product_id: grade}))
    return queries


def draw(seed: int, name: str) -> bytes:
    """Return the place of a name in an order that the seed decides."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _pictures(products: Products, among: Collection[str] | None) -> Iterator[Picture]:
    chosen = None if among is None else set(among)
    after: str | None = None
    while page := products.page(_PAGE, after):
        for product in page:
            if product.pictures and (chosen is None or product.product_id in chosen):
                yield product.pictures[0]
        after = page[-1].product_id
