"""A fair ground while collections are not complete: products that every one of them holds."""

import heapq
from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet

from catalog.opening import Catalog
from core.errors import Conflict
from core.evaluation import EvaluationConfig
from core.filters import Filter
from core.ports import Ledger, Products
from core.types import EncoderInfo, Hit, Vector, row_key
from jobs.evaluation.self_retrieval import draw
from milvus.config import MilvusConfig
from milvus.store import MilvusStore

_PAGE = 1000


class PooledStore(MilvusStore):
    """Searches among given products only; every one of them is scored."""

    def __init__(self, config: MilvusConfig, products: Sequence[str]) -> None:
        super().__init__(config)
        self._products = products

    def search_products(
        self,
        collection: str,
        vector: Vector,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
    ) -> list[Hit]:
        """Find the `limit` nearest of the given products, each by its best picture."""
        excluded = set(exclude_products)
        left = [product_id for product_id in self._products if product_id not in excluded]
        return self.score_products(collection, vector, left, filter)[:limit]


def pool_of(
    catalog: Catalog, infos: Collection[EncoderInfo], config: EvaluationConfig, wanted: AbstractSet[str]
) -> list[str] | None:
    """None while every collection is complete; else products that all hold, those that are `wanted` first.

    Raises:
        Conflict: a version holds nothing.
    """
    counts = {info.collection: catalog.ledger.counts(info.collection) for info in infos}
    empty = [info for info in infos if not counts[info.collection].indexed]
    if empty:
        raise Conflict(
            f"model {empty[0].name!r} has no pictures in its collection {empty[0].collection} yet; build it first"
        )
    if not any(each.missing for each in counts.values()):
        return None
    return heapq.nsmallest(
        config.pool_products,
        _shared(catalog.products, catalog.ledger, list(counts)),
        key=lambda product_id: (product_id not in wanted, draw(config.seed, product_id)),
    )


def _shared(products: Products, ledger: Ledger, collections: Collection[str]) -> Iterator[str]:
    after: str | None = None
    while page := products.page(_PAGE, after):
        keys = {
            product.product_id: [row_key(each.image_id, each.revision) for each in product.pictures]
            for product in page
            if product.pictures
        }
        wanted = [key for each in keys.values() for key in each]
        indexed = set(wanted)
        for collection in collections:
            indexed &= ledger.indexed(collection, wanted)
        yield from (product_id for product_id, each in keys.items() if indexed.issuperset(each))
        after = page[-1].product_id
