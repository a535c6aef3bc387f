"""Calibration of the smallest score that counts as a match, from samples of the catalog, and the vote on it.

The null distribution is that of the *best unrelated product*, since a search shows the best of all N products and
not a random one. It is made of the catalog itself: a sample of its products asks for the others, in the form of the
query. A form is images, titles, or their weighted mean; scores of text lie in another range than those of images.

A product and its nearest relatives are taken for a share of the catalog, and what it finds beyond them is unrelated.
The threshold is the conformal quantile of these scores. A larger share finds more, and keeps the rate for queries
that are less strange.

A query as strange to the catalog as a product without its relatives then gets any answer at all with a chance of at
most the rate. That is the false positive identification rate of ISO/IEC 19795-1, a rate per answer and not per
product. The quantile is that of Vovk et al., "Algorithmic Learning in a Random World", 2005, with 1 / (n + 1) as
the smallest rate that n products can tell. Queries unlike any product, such as noise, are outside of the promise.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from core.concurrency import batched, start_shared
from core.config import Config
from core.errors import Conflict, ModelUnavailable, NotFound, VitrineError, expected
from core.fusion import relative_weights
from core.ports import EncoderClient, VectorStore
from core.types import SCORE_TOLERANCE, EncoderInfo, Hit, Modality, Product, Vector, row_key

Form = tuple[tuple[Modality, float], ...]
"""Modality and the weight of each part of a query."""
Scores = NDArray[np.float64]

MINIMUM_PRODUCTS = 100
"""Below this the relatives, one in a hundred, cannot be separated from the rest."""
_ABOVE = 3 * SCORE_TOLERANCE
"""Distance of a threshold from the best score that is no match: one tolerance each, since

- a store may find that score higher;
- products that tie get the score of the best of them;
- a score within the tolerance of a threshold reaches it.
"""
_VIEWS = 4
_TITLES_A_CALL = 64
_FORMS_KEPT = 64
_GROWING_S = 10.0
"""Age at which the sample of a growing catalog is drawn anew, and waited for."""


class CalibrationConfig(Config):
    """Sample that turns a `max_false_match_rate` into a score."""

    sample_products: int = Field(
        512, ge=100, le=4096, description="Products that stand for the catalog; n tell rates from 1/(n+1)."
    )
    related_share: float = Field(
        0.01, gt=0, lt=0.5, description="Share of the catalog that a product and its relatives are."
    )
    renew_s: float = Field(600.0, gt=0, description="Age at which a sample is drawn anew, in seconds.")


class ProductSample(Protocol):
    """Catalog, as far as a sample is drawn from it."""

    def sample(self, count: int) -> list[Product]:
        """Draw up to `count` products with images, at random but always alike. Blocks."""
        ...


@dataclass(frozen=True, slots=True)
class NullSample:
    """A random sample of n products in one model version's space; all vectors are float32 unit rows.

    `images` (m, dimension) has the products' images one product after the other, `starts` (n,) the row
    of each product's first; `titles` (n, dimension) has their titles, and `titled` (n,) says which have one.
    """

    images: Vector
    starts: NDArray[np.int64]
    titles: Vector
    titled: NDArray[np.bool_]


def null_scores(sample: NullSample, form: Form, related_share: float) -> Scores:
    """Return the best score of an unrelated product for each product that can ask in this form; ascending.

    Raises:
        Conflict: fewer than `MINIMUM_PRODUCTS` can.
    """
    needs_titles = any(modality == "text" for modality, _ in form)
    askers = np.flatnonzero(sample.titled) if needs_titles else np.arange(len(sample.starts))
    if len(askers) < MINIMUM_PRODUCTS:
        kind = "indexed images and a title" if needs_titles else "indexed images"
        raise Conflict(
            f"no rate can be kept yet: it takes {MINIMUM_PRODUCTS} products with {kind}, and there are "
            f"{len(askers)}; give a `score_threshold` of one model instead"
        ).at("max_false_match_rate")
    scores = _queries(sample, askers, form) @ sample.images.T
    best = np.maximum.reduceat(scores, sample.starts, axis=1)
    best[np.arange(len(askers)), askers] = -np.inf
    place = best.shape[1] - max(1, math.ceil(related_share * best.shape[1]))
    unrelated = np.partition(best, place, axis=1)[:, place]
    return np.sort(unrelated.astype(np.float64))


def smallest_match(null: Scores, rate: float) -> float:
    """Return the smallest score that counts as a match, given the ascending null scores.

    Raises:
        Conflict: so many products cannot tell so small a rate.
    """
    rank = math.ceil((len(null) + 1) * (1 - rate) - 1e-9)
    if rank > len(null):
        raise Conflict(
            f"{len(null)} products cannot tell so small a rate for this query; the smallest is "
            f"{1 / (len(null) + 1):.4f} for one model and twice that for the ensemble"
        ).at("max_false_match_rate")
    return float(null[max(rank, 1) - 1]) + _ABOVE


def _queries(sample: NullSample, askers: NDArray[np.int64], form: Form) -> Vector:
    """Ask in the form with each product; what a query pushes away is another product."""
    total = np.zeros((len(askers), sample.images.shape[1]))
    weights = relative_weights([weight for _, weight in form])
    for (modality, _), weight in zip(form, weights, strict=True):
        who = askers if weight >= 0 else np.roll(askers, len(askers) // 2)
        rows = sample.titles[who] if modality == "text" else sample.images[sample.starts[who]]
        total += weight * rows
    lengths = np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    queries: Vector = (total / lengths).astype(np.float32)
    return queries


def matching(
    hits: Sequence[Hit],
    found: Mapping[str, tuple[str, Sequence[Hit]]],
    weights: Mapping[str, float],
    minimum_scores: Mapping[str, float],
) -> list[Hit]:
    """Keep the hits that models with more than half of the weight call a match, in their order.

    `found` holds, by model, the collection that it searched and its hits with cosines. `minimum_scores` are cosines
    by collection, reached within the tolerance of scores; a model without one matches nothing.

    When each model is wrong at most at rate r, the majority is wrong at most at 2 r, however the models depend on
    each other: the weight that is wrong is r on average, and above 1/2 at most 2 r of the time (Markov's
    inequality; Vovk and Wang, "Combining p-values via averaging", Biometrika 2020).

    Raises:
        ModelUnavailable: none of them has one, as while versions change.
    """
    if not any(collection in minimum_scores for collection, _ in found.values()):
        raise ModelUnavailable("no model that answered has a threshold of its version; try again shortly")
    votes: dict[str, float] = {}
    for name, (collection, scored) in found.items():
        minimum = minimum_scores.get(collection, float("inf"))
        for hit in scored:
            if hit.score >= minimum - SCORE_TOLERANCE:
                votes[hit.product_id] = votes.get(hit.product_id, 0.0) + weights[name]
    half = sum(weights.values()) / 2
    return [hit for hit in hits if votes.get(hit.product_id, 0.0) > half + 1e-9]


@dataclass(slots=True)
class _Kept:
    sample: NullSample
    drawn_at: float
    growing: bool
    nulls: dict[Form, Scores] = field(default_factory=dict)


class NullSamples:
    """Draws a sample of a version at its first use; later ones are drawn while the old one still serves."""

    def __init__(self, products: ProductSample, store: VectorStore, config: CalibrationConfig) -> None:
        self._products = products
        self._store = store
        self._config = config
        self._kept: dict[tuple[str, bool], _Kept] = {}
        self._drawing: dict[tuple[str, bool], asyncio.Task[_Kept]] = {}

    async def smallest_match(self, encoder: EncoderClient, form: Form, rate: float) -> tuple[str, float]:
        """Name the collection that serves and the smallest cosine that counts as a match there.

        Raises:
            Conflict: the catalog is too small for any rate, or for this one.
            Unavailable: the encoder or the store does not answer.
        """
        info = await encoder.describe()
        kept = await self._sample(encoder, info, any(modality == "text" for modality, _ in form))
        if form not in kept.nulls:
            null = await asyncio.to_thread(null_scores, kept.sample, form, self._config.related_share)
            if len(kept.nulls) >= _FORMS_KEPT:
                kept.nulls.clear()
            kept.nulls[form] = null
        return info.collection, smallest_match(kept.nulls[form], rate)

    async def _sample(self, encoder: EncoderClient, info: EncoderInfo, with_titles: bool) -> _Kept:
        key = (info.collection, with_titles)
        kept = self._kept.get(key)
        if kept is not None:
            fresh_s = min(self._config.renew_s, _GROWING_S) if kept.growing else self._config.renew_s
            if time.monotonic() - kept.drawn_at <= fresh_s:
                return kept
        if key not in self._drawing:
            self._drawing[key] = start_shared(self._draw(encoder, info, with_titles))
            self._drawing[key].add_done_callback(lambda task: self._drawn(key, task))
        return await asyncio.shield(self._drawing[key]) if kept is None or kept.growing else kept

    def _is_growing(self, key: tuple[str, bool], products: int) -> bool:
        """Judge by the sample before; products that are in quarantine keep a sample small for good."""
        if products < MINIMUM_PRODUCTS:
            # It answers nothing, and costs little.
            return True
        before = self._kept.get(key)
        grew = before is None or products > len(before.sample.starts)
        return grew and products < self._config.sample_products

    def _drawn(self, key: tuple[str, bool], task: "asyncio.Task[_Kept]") -> None:
        del self._drawing[key]
        if task.cancelled():
            return
        if error := task.exception():
            # Perhaps nobody waits for it, since an older sample serves.
            assert isinstance(error, Exception)
            expected(error, f"the sample of {key[0]}")
            return
        self._kept[key] = task.result()

    async def _draw(self, encoder: EncoderClient, info: EncoderInfo, with_titles: bool) -> _Kept:
        products = await asyncio.to_thread(self._products.sample, self._config.sample_products)
        views = await asyncio.to_thread(self._views, info.collection, products)
        products = [product for product in products if product.product_id in views]
        titles, titled = await self._titles(encoder, info, products if with_titles else [])
        rows = [views[product.product_id] for product in products]
        sizes = np.array([len(each) for each in rows], dtype=np.int64)
        images = np.concatenate([np.zeros((0, info.dimension), np.float32), *rows])
        sample = NullSample(images, np.cumsum(sizes) - sizes, titles, titled)
        growing = self._is_growing((info.collection, with_titles), len(rows))
        return _Kept(sample, time.monotonic(), growing)

    def _views(self, collection: str, products: Sequence[Product]) -> dict[str, Vector]:
        keys = {
            product.product_id: [row_key(each.image_id, each.revision) for each in product.images[:_VIEWS]]
            for product in products
        }
        try:
            found = self._store.fetch(collection, [key for some in keys.values() for key in some])
        except NotFound:
            raise ModelUnavailable(f"collection {collection} is not there yet") from None
        unit = {key: vector / np.linalg.norm(vector) for key, vector in found.items()}
        views = {name: [unit[key] for key in some if key in unit] for name, some in keys.items()}
        return {name: np.stack(vectors) for name, vectors in views.items() if vectors}

    async def _titles(
        self, encoder: EncoderClient, info: EncoderInfo, products: Sequence[Product]
    ) -> tuple[Vector, NDArray[np.bool_]]:
        """Embed the titles: unit vectors, zeros where there is none, and which products have one."""
        titles = np.zeros((len(products), info.dimension), np.float32)
        titled = np.zeros(len(products), np.bool_)
        given = [place for place, product in enumerate(products) if product.title.strip()]
        for places in batched(given, _TITLES_A_CALL):
            encoded = await encoder.encode([products[place].title for place in places])
            if encoded.info.collection != info.collection:
                raise ModelUnavailable(f"model {info.name!r} is changing its version; try again shortly")
            for place, answer in zip(places, encoded.vectors, strict=True):
                if not isinstance(answer, VitrineError):
                    titles[place], titled[place] = answer, True
        return titles, titled
