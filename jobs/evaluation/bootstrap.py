"""Means over queries, and how far another draw of queries might move them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

_NUMBERS_AT_ONCE = 4_000_000
"""Values that are resampled at a time: 32 MB."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made; the same seed gives the same interval."""

    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `queries` values and its confidence interval, which one value alone does not have."""

    mean: float
    low: float | None
    high: float | None
    queries: int


def estimate(values: Sequence[float], how: Bootstrap) -> Estimate:
    """The mean of at least one value with its percentile interval (Efron and Tibshirani, 1993, chapter 13)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None, None, len(values))
    found = bootstrap(
        (np.asarray(values, np.float64),),
        np.mean,
        n_resamples=how.resamples,
        batch=max(1, _NUMBERS_AT_ONCE // len(values)),
        confidence_level=how.confidence,
        method="percentile",
        rng=np.random.default_rng(how.seed),
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high), len(values))


def paired_difference(
    first: Mapping[str, float], second: Mapping[str, float], how: Bootstrap
) -> Estimate | None:
    """`first` minus `second`, query by query, over the queries that both have; None when there are none.

    Pairing removes what makes queries easy or hard for both, so that intervals of differences are narrower
    than those of the means would suggest.
    """
    both = [query for query in first if query in second]
    return estimate([first[query] - second[query] for query in both], how) if both else None
