"""Searches and comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

from vitrine.answers import Comparison, Page
from vitrine.call import Call, given, reader
from vitrine.calls.paths import path
from vitrine.parts import Query, written

_PAGE, _COMPARISON = reader(Page), reader(Comparison)


class PageOptions(TypedDict, total=False):
    """Which page of what is near enough; what is left out is for the service to decide."""

    limit: int | None
    offset: int | None
    score_threshold: float | None
    max_false_match_rate: float | None


class Options(PageOptions, total=False):
    """What a search may say beside its query."""

    filter: Mapping[str, Any] | None
    weights: Mapping[str, float] | None
    fusion: Literal["rrf", "weighted"] | None
    lexical_weight: float | None
    exclude: Sequence[str] | None
    include_query_products: bool | None


def search(query: Query, *, model: str | None = None, **options: Unpack[Options]) -> Call[Page]:
    """Find products by words, a picture, or weighted parts.

    Raises:
        InvalidRequest: something is wrong; `param` names the field.
        NotFound: there is no such model, product or picture.
        OSError: a picture's file cannot be read.
    """
    body = given(query=written(query), model=model, **options)
    return Call("POST", path("search"), _PAGE, json=body)


def compare(
    query: Query, *, models: Sequence[str] | None = None, **options: Unpack[Options]
) -> Call[Comparison]:
    """Find products with each of the models; None: with every encoder and the ensemble. As `search`."""
    body = given(query=written(query), models=models if models is None else list(models), **options)
    return Call("POST", path("compare"), _COMPARISON, json=body)


def similar(product_id: str, *, model: str | None = None, **options: Unpack[PageOptions]) -> Call[Page]:
    """Find products that look like this one; NotFound when there is none."""
    params = given(model=model, **options)
    return Call("GET", path("products", product_id, "similar"), _PAGE, params=params)
