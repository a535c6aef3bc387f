"""Queries of a comparison: labeled queries, or changed images of the catalog."""

import hashlib
import heapq
import io
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from catalog.opening import Catalog
from catalog.products import SqlProducts
from core.batching import batched
from core.errors import InvalidInput, NotFound
from core.job_config import EvaluationConfig
from core.types import ProductImage
from jobs.evaluation.labels import JudgedQuery, read_labels
from models.images import ImageLimits, decoding

_LONGEST_SIDE = 640
"""Pixels; encoders reduce images further."""
_CHANGES_AN_IMAGE = 2
_WHITE = (255, 255, 255)

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
logger = logging.getLogger(__name__)
KIND = "changed images"
_PAGE = 1000
_MIN_QUERIES = 2
_PRODUCTS_A_READ = 500


def changed(image: Image.Image, rng: np.random.Generator) -> tuple[bytes, str]:
    """Apply two different random changes to an RGB image; returns a JPEG file and their names."""
    image = image.copy()
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    chosen = sorted(rng.choice(len(CHANGES), size=_CHANGES_AN_IMAGE, replace=False).tolist())
    names = [list(CHANGES)[place] for place in chosen]
    for name in names:
        image = CHANGES[name](image, rng)
    return _jpeg(image, quality=90), " + ".join(names)


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = np.sqrt(rng.uniform(0.5, 0.9))
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    return image.crop((int(left), int(top), int(left) + width, int(top) + height))


def _rotate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    angle = float(rng.uniform(5, 25)) * (1 if rng.random() < 0.5 else -1)
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=_WHITE)


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.005, 0.015)) * max(image.size)))


def _jpeg_artifacts(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.open(io.BytesIO(_jpeg(image, quality=int(rng.integers(8, 25))))).convert("RGB")


def _color(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(rng.uniform(0.7, 1.3)))
    return image


def _background(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = (round(side * rng.uniform(1.2, 1.6)) for side in image.size)
    red, green, blue = rng.integers(0, 256, size=3).tolist()
    canvas = Image.new("RGB", (width, height), (red, green, blue))
    canvas.paste(
        image,
        (int(rng.integers(width - image.width + 1)), int(rng.integers(height - image.height + 1))),
    )
    return canvas


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


CHANGES: Mapping[str, Change] = {
    "crop": _crop,
    "rotation": _rotate,
    "background": _background,
    "color": _color,
    "blur": _blur,
    "compression": _jpeg_artifacts,
}
"""Changes by name, in the order in which they are applied."""


def changed_images(
    catalog: Catalog,
    limits: ImageLimits,
    count: int,
    seed: int,
    grade: int,
    among: Collection[str] | None = None,
) -> list[JudgedQuery]:
    """Draw up to `count` images, at most one a product, and change them; the same seed gives the same bytes.

    Products are drawn from the catalog, or from `among`, by a hash of their ids, so most queries stay when the
    catalog grows. The only answer of a query is its own product, with `grade`. Images whose file is missing,
    damaged or beyond the `limits` are skipped. Other products with the same image count as wrong, so these figures
    compare models but do not predict what shoppers see.
    """
    drawn = heapq.nsmallest(
        count, _images(catalog.products, among), key=lambda found: draw(seed, found.product_id)
    )
    queries = []
    for image in drawn:
        rng = np.random.default_rng((seed, *draw(seed, image.image_id)))
        try:
            with decoding(catalog.blobs.get(image.sha256), limits) as decoded:
                file, _ = changed(decoded.image, rng)
        except (InvalidInput, NotFound) as error:
            logger.warning("image %s is no query: %s", image.image_id, error.message)
            continue
        queries.append(JudgedQuery(image.image_id, KIND, None, file, {image.product_id: grade}))
    return queries


def draw(seed: int, name: str) -> bytes:
    """Return the sort key of a name in the order of the seed."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _images(products: SqlProducts, among: Collection[str] | None) -> Iterator[ProductImage]:
    chosen = None if among is None else set(among)
    after: str | None = None
    while page := products.page(_PAGE, after):
        for product in page:
            if product.images and (chosen is None or product.product_id in chosen):
                yield product.images[0]
        after = page[-1].product_id


@dataclass(frozen=True, slots=True)
class Labels:
    """Labeled queries, restricted to products of the catalog; `notes` count what was left out."""

    queries: tuple[JudgedQuery, ...]
    notes: tuple[str, ...]

    @property
    def products(self) -> set[str]:
        """All products that answer a query."""
        return {product_id for query in self.queries for product_id in query.grades}


def labels_of(url: str, catalog: Catalog, relevant_from: int) -> Labels:
    """Read labeled queries, restricted to products of the catalog; raises as `read_labels`."""
    read = read_labels(url)
    named = sorted({product_id for query in read for product_id in query.grades})
    existing: set[str] = set()
    for some in batched(named, _PRODUCTS_A_READ):
        existing |= set(catalog.products.get_many(some))
    kept = _restricted(read, existing, relevant_from)
    notes = []
    if len(existing) < len(named) or len(kept) < len(read):
        notes.append(
            f"{len(named) - len(existing)} of {len(named)} labeled products are not in the catalog, and "
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
    """Return the labeled queries, or changed images, that products of the pool answer; None: all products.

    Raises:
        InvalidInput: there are fewer than two.
    """
    if labels is None:
        queries = changed_images(catalog, limits, config.sample, config.seed, config.relevant_from, pool)
    else:
        queries = (
            list(labels.queries)
            if pool is None
            else _restricted(labels.queries, set(pool), config.relevant_from)
        )
    if len(queries) < _MIN_QUERIES:
        raise InvalidInput(f"{len(queries)} queries have an answer, which is too few for a comparison").at(
            "queries"
        )
    return queries


def _restricted(queries: Sequence[JudgedQuery], products: set[str], relevant_from: int) -> list[JudgedQuery]:
    restricted = (
        replace(query, grades={key: grade for key, grade in query.grades.items() if key in products})
        for query in queries
    )
    return [query for query in restricted if max(query.grades.values(), default=0) >= relevant_from]
