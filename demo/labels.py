"""Labeled queries on the synthetic catalog, and their export: `python -m demo.labels FOLDER`."""

import argparse
import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from demo.catalog import demo_designs, jpeg
from demo.garments import Design, caption
from demo.run import SEED

_GARMENT = ("type", "color", "pattern")
TABLE = "labels.csv"
FULL_GRADE = 3
_COLUMNS = ("query_id", "text", "image", "product_id", "grade")


@dataclass(frozen=True, slots=True)
class DemoQuery:
    """A text, or the image of a garment that is not in the catalog, with graded product ids.

    `grades` counts the attributes that a product shares with what was asked, leaving out products that
    share none; `relevant` are the products that share all, of which there is at least one.
    """

    text: str | None
    image: bytes | None
    grades: dict[str, int]
    relevant: frozenset[str]


def text_queries(seed: int, products: int) -> list[DemoQuery]:
    """Make a query of each pair of color and type in the catalog, as in "red dress", in order of appearance."""
    designs = demo_designs(seed, products)
    asked = dict.fromkeys((design.type, design.color) for design in designs.values())
    shown = {(design.type, design.color): design for design in designs.values()}
    return [
        _query(
            shown[pair], ("type", "color"), designs.items(), text=caption(shown[pair], ["color"], prefix="")
        )
        for pair in asked
    ]


def image_queries(seed: int, products: int, count: int = 200) -> list[DemoQuery]:
    """Draw garments of the catalog's designs anew: other proportions, dye, print and photograph."""
    designs = demo_designs(seed, products)
    rng = np.random.default_rng((seed, 6))
    queries = []
    for number, place in enumerate(rng.integers(len(designs), size=count)):
        design = list(designs.values())[place]
        item, photograph = (np.random.SeedSequence((seed, kind, number)) for kind in (7, 8))
        queries.append(_query(design, _GARMENT, designs.items(), image=jpeg(design, item, photograph)))
    return queries


def _query(
    design: Design,
    attributes: Sequence[str],
    designs: Iterable[tuple[str, Design]],
    text: str | None = None,
    image: bytes | None = None,
) -> DemoQuery:
    shared = {
        product_id: sum(getattr(other, name) == getattr(design, name) for name in attributes)
        for product_id, other in designs
    }
    grades = {product_id: count for product_id, count in shared.items() if count}
    relevant = frozenset(product_id for product_id, count in grades.items() if count == len(attributes))
    return DemoQuery(text, image, grades, relevant)


def main() -> None:
    """Export the queries of the catalog that `make demo` indexes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--products", type=int, default=500, help="of the catalog (default %(default)s)")
    parser.add_argument("--images", type=int, default=200, help="queries by image (default %(default)s)")
    options = parser.parse_args()
    count = write_labels(options.folder, SEED, options.products, options.images)
    Console().print(f"{count} queries in {options.folder / TABLE}")


def write_labels(folder: Path, seed: int, products: int, images: int) -> int:
    """Write the queries by text and by image, a row for each product with a grade; returns their number."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    queries = [*text_queries(seed, products), *image_queries(seed, products, images)]
    with (folder / TABLE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for number, query in enumerate(queries):
            query_id, image = f"q{number:04d}", ""
            if query.image is not None:
                image = f"images/{query_id}.jpg"
                (folder / image).write_bytes(query.image)
            rows = sorted((key, _grade(query, key)) for key in query.grades)
            table.writerows((query_id, query.text or "", image, *row) for row in rows)
    return len(queries)


def _grade(query: DemoQuery, product_id: str) -> int:
    """Grade a product: `FULL_GRADE` where it shares all that was asked, else the number it shares."""
    return FULL_GRADE if product_id in query.relevant else query.grades[product_id]


if __name__ == "__main__":
    main()
