"""Queries of a comparison: labeled queries, or changed images of the catalog.

Labeled queries are read from a table with the images beside it, of any format that imports read:

| column | what |
| --- | --- |
| `query_id` | text; rows of the same query share it |
| `text` | the query's text; empty or missing where it has none |
| `image` | the query's image, a path relative to the table's folder; empty or missing where it has none |
| `product_id` | a judged product |
| `grade` | relevance: 0 none, higher is better; 1 where the column is missing or empty |

A query has a text, an image or both, on at least one of its rows.
"""

import hashlib
import heapq
import io
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np
from fsspec.core import url_to_fs
from PIL import Image, ImageEnhance, ImageFilter

from catalog.opening import Catalog
from catalog.products import SqlProducts
from catalog.sources.entries import Row
from catalog.sources.table import Table
from core.concurrency import batched
from core.config import EvaluationConfig
from core.errors import InvalidInput, NotFound, Unavailable
from core.search import QueryPart
from core.types import EncoderInput, ProductImage
from models.images import ImageLimits, decoding

TEXTS = ("query_id", "text", "image", "product_id")
_NEEDED = ("query_id", "product_id")
_HIGHEST_GRADE = 1000
_KINDS = {(True, False): "texts", (False, True): "images", (True, True): "texts and images"}


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A text, an image file or both, with the grades above 0 of products by id.

    Figures are computed for each `kind` apart, since results by text do not predict those by image.
    """

    query_id: str
    kind: str
    text: str | None
    image: bytes | None
    grades: Mapping[str, int]

    @property
    def inputs(self) -> tuple[EncoderInput, ...]:
        """Inputs for an encoder."""
        return tuple(each for each in (self.text, self.image) if each is not None)

    @property
    def parts(self) -> tuple[QueryPart, ...]:
        """Parts of the query; text and image have equal weights."""
        return tuple(QueryPart(content) for content in self.inputs)


def read_table(name: str, opened: Callable[[], IO[bytes]]) -> list[Row]:
    """Read the rows of a table; texts are stripped, empty ones are None, and grades are integers.

    Raises:
        InvalidInput: the file is of another kind, is damaged, or lacks a column or a value.
    """
    table = Table(name, opened)
    lacking = [column for column in _NEEDED if column not in table.columns]
    if lacking:
        raise InvalidInput(
            f"{name}: there is no column {lacking[0]!r}; columns: {', '.join(table.columns):.500}"
        )
    return [_row(f"{name}: row {number}", row) for number, row in enumerate(table.rows(), start=1)]


def _row(place: str, row: Row | InvalidInput) -> Row:
    if isinstance(row, InvalidInput):
        raise row.reworded(f"{place}: {row.message}")
    several = [column for column in (*TEXTS, "grade") if isinstance(row.get(column), list)]
    if several:
        raise InvalidInput(f"{place} has several values of {several[0]}")
    cleaned = {column: _text(row.get(column)) for column in TEXTS}
    for column in _NEEDED:
        if cleaned[column] is None:
            raise InvalidInput(f"{place} has no {column}")
    grade = _text(row.get("grade")) or "1"
    if not grade.isdecimal() or int(grade) > _HIGHEST_GRADE:
        raise InvalidInput(f"{place} has grade {grade:.100}; grades are whole numbers, 0 to {_HIGHEST_GRADE}")
    return cleaned | {"grade": int(grade)}


def _text(value: Any) -> str | None:
    if isinstance(value, float):
        # A column of whole numbers with gaps is one of floats, where the gaps are NaN.
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if value is None else str(value).strip() or None


def read_labels(url: str) -> list[JudgedQuery]:
    """Read labeled queries from a file, by path or as fsspec names it, with the images beside it.

    Raises:
        InvalidInput: a file is missing or wrong, or a query contradicts itself, is empty or has no answer.
        Unavailable: the file system does not answer.
    """
    try:
        files, path = url_to_fs(url)
        rows = read_table(PurePosixPath(path).name, lambda: files.open(path, "rb"))
        by_query: dict[str, list[Row]] = {}
        for row in rows:
            by_query.setdefault(row["query_id"], []).append(row)
        folder = str(PurePosixPath(path).parent)
        return [_query(query_id, of_query, files, folder) for query_id, of_query in by_query.items()]
    except InvalidInput as error:
        raise error.at("queries") from None
    except (ValueError, ImportError) as error:
        raise InvalidInput(f"{url!r:.200} cannot be opened: {error}").at("queries") from None
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidInput(f"there is no file {url!r:.200} of labeled queries").at("queries") from None
    except OSError as error:
        raise Unavailable(f"{url!r:.200} cannot be read: {type(error).__name__}") from error


def _query(query_id: str, rows: Sequence[Row], files: Any, folder: str) -> JudgedQuery:
    text, path = (_agreed(query_id, rows, column) for column in ("text", "image"))
    if text is None and path is None:
        raise InvalidInput(f"query {query_id!r:.100} has neither text nor image")
    grades: dict[str, int] = {}
    for row in rows:
        if grades.setdefault(row["product_id"], row["grade"]) != row["grade"]:
            raise InvalidInput(
                f"query {query_id!r:.100} grades product {row['product_id']!r:.100} twice, and differently"
            )
    relevant = {product_id: grade for product_id, grade in grades.items() if grade > 0}
    if not relevant:
        raise InvalidInput(f"no product answers query {query_id!r:.100}: all its grades are 0")
    image = None if path is None else _read_image(query_id, path, files, folder)
    return JudgedQuery(query_id, _KINDS[text is not None, path is not None], text, image, relevant)


def _agreed(query_id: str, rows: Sequence[Row], column: str) -> str | None:
    found = {row[column] for row in rows} - {None}
    if len(found) > 1:
        raise InvalidInput(f"the rows of query {query_id!r:.100} differ in {column}")
    return next(iter(found), None)


def _read_image(query_id: str, name: str, files: Any, folder: str) -> bytes:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "://" in name:
        raise InvalidInput(
            f"query {query_id!r:.100} names image {name!r:.200}; images are paths below the table's folder"
        )
    try:
        data: bytes = files.cat_file(f"{folder}/{path}")
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidInput(f"query {query_id!r:.100}: there is no image {name!r:.200}") from None
    except OSError as error:
        raise Unavailable(f"image {name!r:.200} cannot be read: {type(error).__name__}") from error
    return data


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
