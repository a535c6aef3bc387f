"""Calibration: the rate of false matches is kept, and samples of the catalog are drawn once and anew as it grows."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from core.calibration import (
    MINIMUM_PRODUCTS,
    CalibrationConfig,
    Form,
    NullSample,
    NullSamples,
    null_scores,
    smallest_match,
)
from core.errors import Conflict, ModelUnavailable
from core.telemetry import answering, current_request_id
from core.types import Encoded, EncoderInfo, EncoderInput, Product, ProductImage
from deployments.http.middleware import ending_at, within_deadline
from milvus.memory import MemoryStore
from tests.support.vector_stores import row

pytestmark = pytest.mark.anyio

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


@pytest.fixture
def small() -> NullSample:
    rng = np.random.default_rng(3)
    return sample(rng, directions(rng, 60), kin=2, titled=120)


def test_a_smaller_rate_asks_for_more_down_to_what_the_sample_can_tell(small: NullSample) -> None:
    null = null_scores(small, IMAGE, RELATED_SHARE)
    minimums = [smallest_match(null, rate) for rate in (0.01, 0.1, 0.5, 0.99)]
    assert minimums == sorted(minimums, reverse=True)
    assert minimums[0] > null[-2]
    assert smallest_match(null, 1 / (len(null) + 1)) > null[-1]
    with pytest.raises(Conflict, match=f"smallest is {1 / (len(null) + 1):.4f}"):
        smallest_match(null, 0.9 / (len(null) + 1))


def test_text_is_measured_against_titles(small: NullSample) -> None:
    forms: list[Form] = [TEXT, (*IMAGE, *TEXT), IMAGE]
    minimums = [smallest_match(null_scores(small, form, RELATED_SHARE), 0.1) for form in forms]
    assert minimums == sorted(set(minimums))


def test_what_a_query_pushes_away_is_another_product(small: NullSample) -> None:
    null = null_scores(small, (("image", 1.0), ("image", -1.0)), RELATED_SHARE)
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


@pytest.mark.parametrize("scale", [1e-300, 1e39, 1e308])
def test_only_the_proportions_of_weights_mean_something(scale: float, small: NullSample) -> None:
    null = null_scores(small, (("image", 1.0), ("text", -0.5)), RELATED_SHARE)
    scaled: Form = (("image", scale), ("text", -0.5 * scale))
    assert null_scores(small, scaled, RELATED_SHARE) == pytest.approx(null, abs=1e-6)


INFO = EncoderInfo("m", "fake", "", "0123456789ab", DIMENSION, ("image", "text"), "float32", "cpu")


@dataclass
class Catalog:
    """As many products as said, two images each; counts how often it is asked."""

    size: int = 200
    asked: int = 0

    def sample(self, count: int) -> list[Product]:
        self.asked += 1
        now = datetime(2026, 3, 1, tzinfo=UTC)
        return [
            Product(f"p{n}", f"title {n}", "", {}, images(n), 1, now, now)
            for n in range(min(self.size, count))
        ]


@dataclass
class TitleEncoder:
    name: str = "m"
    info: EncoderInfo = INFO
    texts: list[str] = field(default_factory=list)

    async def describe(self) -> EncoderInfo:
        return INFO

    async def encode(self, inputs: list[EncoderInput]) -> Encoded:
        self.texts += [each for each in inputs if isinstance(each, str)]
        return Encoded(self.info, list(directions(np.random.default_rng(len(self.texts)), len(inputs))))


def images(number: int) -> tuple[ProductImage, ...]:
    return tuple(
        ProductImage(f"i{number}-{view}", f"p{number}", view, "", "image/png", 1, 1, 1, 1)
        for view in range(2)
    )


def store_of(size: int) -> MemoryStore:
    store, rng = MemoryStore(), np.random.default_rng(0)
    store.ensure_collection(INFO.collection, DIMENSION)
    rows = [row(each.image_id, directions(rng, 1)[0], f"p{n}") for n in range(size) for each in images(n)]
    store.upsert(INFO.collection, rows)
    return store


def samples_of(
    catalog: Catalog, store: MemoryStore | None = None, sample_products: int = 150, renew_s: float = 600
) -> NullSamples:
    config = CalibrationConfig(sample_products=sample_products, renew_s=renew_s)
    return NullSamples(catalog, store or store_of(200), config)


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr("core.calibration.time", clock := Clock())
    return clock


async def test_a_sample_is_drawn_once_for_many_questions() -> None:
    catalog, encoder = Catalog(), TitleEncoder()
    samples = samples_of(catalog)
    found = await asyncio.gather(*(samples.smallest_match(encoder, IMAGE, 0.1) for _ in range(8)))
    assert len(set(found)) == 1
    assert found[0][0] == INFO.collection
    assert (await samples.smallest_match(encoder, IMAGE, 0.01))[1] > found[0][1]
    assert (catalog.asked, encoder.texts) == (1, [])
    await samples.smallest_match(encoder, TEXT, 0.1)
    assert encoder.texts == [f"title {n}" for n in range(150)], "titles are embedded when a text asks"


async def test_an_old_sample_serves_while_the_next_is_drawn(clock: Clock) -> None:
    catalog, encoder = Catalog(), TitleEncoder()
    samples = samples_of(catalog)
    first = await samples.smallest_match(encoder, IMAGE, 0.1)
    clock.now += 601
    assert await samples.smallest_match(encoder, IMAGE, 0.1) == first
    await asyncio.gather(*samples._drawing.values())
    assert catalog.asked == 2


async def test_a_catalog_that_was_too_small_is_looked_at_again(clock: Clock) -> None:
    catalog = Catalog(20)
    samples = samples_of(catalog)
    for clock.now in (0, 11, 22):
        with pytest.raises(Conflict, match="there are 20"):
            await samples.smallest_match(TitleEncoder(), IMAGE, 0.1)
    catalog.size, clock.now = 200, 33
    assert (await samples.smallest_match(TitleEncoder(), IMAGE, 0.1))[1] < 1


@pytest.mark.parametrize("size", [150, 512])
async def test_a_sample_that_grows_no_more_is_kept(size: int, clock: Clock) -> None:
    """A small catalog, and one of which some products are in quarantine: 300 are indexed."""
    catalog, asked = Catalog(size), []
    samples = samples_of(catalog, store_of(300), sample_products=512)
    for clock.now in (0, 11, 22, 500, 700):
        await samples.smallest_match(TitleEncoder(), IMAGE, 0.1)
        await asyncio.gather(*samples._drawing.values())
        asked.append(catalog.asked)
    assert asked == [1, 2, 2, 2, 3]


async def test_a_missing_collection_and_a_change_of_version_are_a_matter_of_time() -> None:
    with pytest.raises(ModelUnavailable):
        await samples_of(Catalog(), MemoryStore()).smallest_match(TitleEncoder(), IMAGE, 0.1)
    other = replace(INFO, fingerprint="ba9876543210")
    with pytest.raises(ModelUnavailable, match="changing its version"):
        await samples_of(Catalog()).smallest_match(TitleEncoder(info=other), TEXT, 0.1)


class Gated(TitleEncoder):
    """Waits until it may answer; notes what limits its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.limits_s: list[float] = []
        self.ids: list[str] = []

    async def encode(self, inputs: list[EncoderInput]) -> Encoded:
        await self.may_answer.wait()
        self.limits_s.append(within_deadline(30))
        self.ids.append(current_request_id())
        return await super().encode(inputs)


async def test_a_sample_does_not_end_with_the_request_that_began_it() -> None:
    encoder = Gated()
    samples = samples_of(Catalog())
    with answering("impatient"), ending_at(asyncio.get_running_loop().time()):
        impatient = asyncio.create_task(samples.smallest_match(encoder, TEXT, 0.1))
    patient = asyncio.create_task(samples.smallest_match(encoder, TEXT, 0.1))
    while not samples._drawing:
        await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    encoder.may_answer.set()
    assert (await patient)[0] == INFO.collection
    assert impatient.cancelled()
    assert (set(encoder.limits_s), set(encoder.ids)) == ({30.0}, {""})
    assert len(encoder.texts) == 150
