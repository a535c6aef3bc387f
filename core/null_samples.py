"""Smallest matching scores per model version, from samples of the catalogue that are kept and renewed."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from pydantic import Field

from core.calibration import Form, NullSample, Scores, null_scores, smallest_match
from core.config import Config
from core.errors import ModelUnavailable, NotFound, VitrineError, expected
from core.ports import EncoderClient, VectorStore
from core.shared_work import start_shared
from core.types import EncoderInfo, Product, Vector, row_key

_VIEWS = 4
_TITLES_A_CALL = 64
_FORMS_KEPT = 64
_GROWING_S = 10.0
"""Age at which a sample smaller than asked for is drawn anew, and waited for: the catalogue grows."""


class CalibrationConfig(Config):
    """How `max_false_match_rate` becomes a score."""

    sample_products: int = Field(
        512, ge=100, le=4096, description="Products that stand for the catalogue; n tell rates from 1/(n+1)."
    )
    related_share: float = Field(
        0.01, gt=0, lt=0.5, description="Share of the catalogue that a product and its relatives are."
    )
    renew_s: float = Field(600.0, gt=0, description="Age at which a sample is drawn anew, in seconds.")


class ProductSample(Protocol):
    """Where the sample comes from."""

    def sample(self, count: int) -> list[Product]:
        """Draw up to `count` products with pictures, at random but always alike. Blocks."""
        ...


@dataclass(slots=True)
class _Kept:
    sample: NullSample
    drawn_at: float
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
            Conflict: the catalogue is too small for any rate, or for this one.
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

    async def _sample(self, encoder: EncoderClient, info: EncoderInfo, with_words: bool) -> _Kept:
        key = (info.collection, with_words)
        kept = self._kept.get(key)
        full = kept is not None and len(kept.sample.starts) >= self._config.sample_products
        fresh_s = self._config.renew_s if full else min(self._config.renew_s, _GROWING_S)
        if kept is not None and time.monotonic() - kept.drawn_at <= fresh_s:
            return kept
        if key not in self._drawing:
            self._drawing[key] = start_shared(self._draw(encoder, info, with_words))
            self._drawing[key].add_done_callback(lambda task: self._drawn(key, task))
        return kept if kept is not None and full else await asyncio.shield(self._drawing[key])

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

    async def _draw(self, encoder: EncoderClient, info: EncoderInfo, with_words: bool) -> _Kept:
        products = await asyncio.to_thread(self._products.sample, self._config.sample_products)
        views = await asyncio.to_thread(self._views, info.collection, products)
        products = [product for product in products if product.product_id in views]
        rows = [views[product.product_id] for product in products]
        words, worded = await self._titles(encoder, info, products if with_words else [])
        sizes = np.array([len(each) for each in rows], dtype=np.int64)
        sample = NullSample(
            pictures=np.stack([vector for each in rows for vector in each])
            if rows
            else np.zeros((0, info.dimension), np.float32),
            starts=np.cumsum(sizes) - sizes,
            words=words,
            worded=worded,
        )
        return _Kept(sample, time.monotonic())

    def _views(self, collection: str, products: Sequence[Product]) -> dict[str, list[Vector]]:
        keys = {
            row_key(picture.image_id, picture.revision): product.product_id
            for product in products
            for picture in product.pictures[:_VIEWS]
        }
        try:
            found = self._store.fetch(collection, list(keys))
        except NotFound:
            raise ModelUnavailable(f"collection {collection} is not there yet") from None
        views: dict[str, list[Vector]] = {}
        for key, product_id in keys.items():
            if key in found:
                vector = found[key].astype(np.float32)
                views.setdefault(product_id, []).append(vector / np.linalg.norm(vector))
        return views

    async def _titles(
        self, encoder: EncoderClient, info: EncoderInfo, products: Sequence[Product]
    ) -> tuple[Vector, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
        """Unit vectors of the titles, zeros where there is none."""
        words = np.zeros((len(products), info.dimension), np.float32)
        worded = np.zeros(len(products), np.bool_)
        titled = [place for place, product in enumerate(products) if product.title.strip()]
        for start in range(0, len(titled), _TITLES_A_CALL):
            places = titled[start : start + _TITLES_A_CALL]
            encoded = await encoder.encode([products[place].title for place in places])
            if encoded.info.collection != info.collection:
                raise ModelUnavailable(f"model {info.name!r} is changing its version; try again shortly")
            for place, answer in zip(places, encoded.vectors, strict=True):
                if not isinstance(answer, VitrineError):
                    words[place], worded[place] = answer, True
        return words, worded
