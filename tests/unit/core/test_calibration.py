"""A rate of false matches is kept for queries that the catalog has nothing like."""

import numpy as np
import pytest
from numpy.typing import NDArray

from core.calibration import MINIMUM_PRODUCTS, Form, NullSample, null_scores, smallest_match
from core.errors import Conflict

DIMENSION = 16
IMAGE: Form = (("image", 1.0),)
TEXT: Form = (("text", 1.0),)
RELATED_SHARE = 0.01


def directions(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    return _unit(rng.normal(size=(count, DIMENSION)))


def near(rng: np.random.Generator, centers: NDArray[np.float32]) -> NDArray[np.float32]:
    return _unit(centers + rng.normal(0, 0.05, centers.shape))


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def sample(rng: np.random.Generator, centers: NDArray[np.float32], kin: int, titled: int) -> NullSample:
    """`kin` products around each center, of one to four images; titles lie elsewhere than images."""
    products = np.repeat(centers, kin, axis=0)[rng.permutation(len(centers) * kin)]
    views = rng.integers(1, 5, len(products))
    apart = np.eye(1, DIMENSION, dtype=np.float32)
    return NullSample(
        images=near(rng, np.repeat(products, views, axis=0)),
        starts=np.cumsum(views) - views,
        titles=_unit(near(rng, products) - 2 * apart),
        titled=np.arange(len(products)) < titled,
    )


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
def test_strangers_match_at_most_at_the_rate_and_kin_always(rate: float) -> None:
    rng = np.random.default_rng(5)
    shares = []
    for _ in range(20):
        centers = directions(rng, 100)
        catalog = sample(rng, centers, kin=5, titled=0)
        minimum = smallest_match(null_scores(catalog, IMAGE, RELATED_SHARE), rate)
        best = (directions(rng, 200) @ catalog.images.T).max(axis=1)
        shares.append(float(np.mean(best >= minimum)))
        kin = (near(rng, centers) @ catalog.images.T).max(axis=1)
        assert np.mean(kin >= minimum) == 1
    print(f"rate {rate}: strangers answered {np.mean(shares):.4f}")
    assert rate / 4 <= np.mean(shares) <= rate * 1.15


def test_a_smaller_rate_asks_for_more() -> None:
    null = null_scores(_small(), IMAGE, RELATED_SHARE)
    minimums = [smallest_match(null, rate) for rate in (0.01, 0.1, 0.5, 0.99)]
    assert minimums == sorted(minimums, reverse=True)
    assert minimums[0] > null[-2]


def test_text_is_measured_against_titles() -> None:
    catalog = _small()
    images = smallest_match(null_scores(catalog, IMAGE, RELATED_SHARE), 0.1)
    text = smallest_match(null_scores(catalog, TEXT, RELATED_SHARE), 0.1)
    both = smallest_match(null_scores(catalog, (*IMAGE, ("text", 1.0)), RELATED_SHARE), 0.1)
    assert text < both < images


def test_what_a_query_pushes_away_is_another_product() -> None:
    form: Form = (("image", 1.0), ("image", -1.0))
    null = null_scores(_small(), form, RELATED_SHARE)
    assert np.isfinite(null).all()
    assert null.max() < 1


def test_a_small_catalog_cannot_tell_a_rate() -> None:
    rng = np.random.default_rng(1)
    few = sample(rng, directions(rng, MINIMUM_PRODUCTS - 1), kin=1, titled=0)
    with pytest.raises(Conflict, match="there are 99"):
        null_scores(few, IMAGE, RELATED_SHARE)
    untitled = sample(rng, directions(rng, MINIMUM_PRODUCTS), kin=1, titled=3)
    with pytest.raises(Conflict, match="a title, and there are 3"):
        null_scores(untitled, TEXT, RELATED_SHARE)


def test_a_rate_below_what_the_sample_can_tell_is_refused() -> None:
    null = null_scores(_small(), IMAGE, RELATED_SHARE)
    assert smallest_match(null, 1 / (len(null) + 1)) > null[-1]
    with pytest.raises(Conflict, match=f"smallest is {1 / (len(null) + 1):.4f}"):
        smallest_match(null, 0.9 / (len(null) + 1))


def _small() -> NullSample:
    rng = np.random.default_rng(3)
    return sample(rng, directions(rng, 60), kin=2, titled=120)


def test_only_the_proportions_of_weights_mean_something() -> None:
    null = null_scores(_small(), (("image", 1.0), ("text", -0.5)), RELATED_SHARE)
    for scale in (1e-300, 1e39, 1e308):
        scaled: Form = (("image", scale), ("text", -0.5 * scale))
        assert null_scores(_small(), scaled, RELATED_SHARE) == pytest.approx(null, abs=1e-6)
