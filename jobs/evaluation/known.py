"""Which queries a comparison asks: labelled ones that the catalog can answer, or changed pictures of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from catalog.opening import Catalog
from core.errors import InvalidInput
from core.evaluation import EvaluationConfig
from core.portions import parts
from jobs.evaluation.labels import read_labels
from jobs.evaluation.queries import JudgedQuery
from jobs.evaluation.self_retrieval import changed_pictures
from models.images import ImageLimits

_FEWEST = 2
_PRODUCTS_A_READ = 500


@dataclass(frozen=True, slots=True)
class Labels:
    """Labelled queries with the products that the catalog holds; `notes` tell what it does not."""

    queries: tuple[JudgedQuery, ...]
    notes: tuple[str, ...]

    @property
    def products(self) -> set[str]:
        """Everything that answers a query."""
        return {product_id for query in self.queries for product_id in query.grades}


def labels_of(url: str, catalog: Catalog, relevant_from: int) -> Labels:
    """Read labelled queries, without the products that the catalog lacks; raises as `read_labels`."""
    read = read_labels(url)
    named = sorted({product_id for query in read for product_id in query.grades})
    existing: set[str] = set()
    for some in parts(named, _PRODUCTS_A_READ):
        existing |= set(catalog.products.get_many(some))
    kept = _restricted(read, existing, relevant_from)
    notes = []
    if len(existing) < len(named) or len(kept) < len(read):
        notes.append(
            f"{len(named) - len(existing)} of {len(named)} labelled products are not in the catalog, and "
            f"{len(read) - len(kept)} of {len(read)} queries have no answer: both are left out"
        )
    return Labels(tuple(kept), tuple(notes))


def queries_for(
    config: EvaluationConfig,
    catalog: Catalog,
    limits: ImageLimits,
    labels: Labels | None,
    pool: Collection[str] | None,
) -> list[JudgedQuery]:
    """The labelled queries, or changed pictures, that products of the pool (None: of all) answer.

    Raises:
        InvalidInput: there are fewer than two.
    """
    if labels is None:
        queries = changed_pictures(catalog, limits, config.sample, config.seed, config.relevant_from, pool)
    else:
        queries = (
            list(labels.queries)
            if pool is None
            else _restricted(labels.queries, set(pool), config.relevant_from)
        )
    if len(queries) < _FEWEST:
        raise InvalidInput(f"{len(queries)} queries can be answered, which is too few to compare by").at(
            "queries"
        )
    return queries


def _restricted(queries: Sequence[JudgedQuery], products: set[str], relevant_from: int) -> list[JudgedQuery]:
    restricted = (
        replace(query, grades={key: grade for key, grade in query.grades.items() if key in products})
        for query in queries
    )
    return [query for query in restricted if max(query.grades.values(), default=0) >= relevant_from]
