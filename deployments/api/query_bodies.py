"""The JSON of searches and comparisons."""

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from core.types import WholeNumber
from deployments.api.parts import Parts
from deployments.api.requests import Body

SCORE_THRESHOLD = "Smallest score of a result: a cosine similarity, so not for the ensemble."
MAX_FALSE_MATCH_RATE = (
    "Leaves out what is not near enough: a query that is as strange to the catalogue as a product without "
    "its nearest hundredth is answered with anything at most this often. In the ensemble, members with more "
    "than half of the weight have to agree."
)


class QueryBody(Body):
    """What to look for, and which page of it."""

    query: Parts = Field([], description="Words, or weighted parts.")
    weights: dict[str, Annotated[FiniteFloat, Field(ge=0)]] | None = Field(
        None,
        description="Ensemble only: a member's weight in place of its configured one; members left out keep "
        "theirs, and 0 leaves one out.",
    )
    fusion: Literal["rrf", "weighted"] | None = Field(None, description="Ensemble only: how lists are fused.")
    lexical_weight: FiniteFloat | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the ranking by the query's own words, fused with the one by vectors: 0 vectors "
        "alone, 1 words alone. Left out: as configured for words to the ensemble, else 0.",
    )
    score_threshold: FiniteFloat | None = Field(None, ge=-1, le=1, description=SCORE_THRESHOLD)
    max_false_match_rate: FiniteFloat | None = Field(None, gt=0, lt=1, description=MAX_FALSE_MATCH_RATE)
    limit: WholeNumber = Field(10, ge=1, description="Distinct products to return.")
    offset: WholeNumber = Field(0, ge=0, description="Products to skip.")
    filter: dict[str, Any] | None = Field(None, description="Conditions on attributes.")
    exclude: list[str] = Field([], max_length=1000, description="Products to leave out.")
    include_query_products: bool = Field(
        False, description="Whether products that the query names, or whose picture it names, may be found."
    )


class SearchBody(QueryBody):
    """A search."""

    model: str = Field("ensemble", description="An encoder's name, or `ensemble`.")


class CompareBody(QueryBody):
    """A search with several models side by side."""

    models: list[str] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Encoders' names and `ensemble`; left out: every encoder and the ensemble.",
    )
