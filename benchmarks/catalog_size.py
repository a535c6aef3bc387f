"""Size of a product, an image and a ledger row in the database: `python -m benchmarks.catalog_size`.

    python -m benchmarks.catalog_size [--url postgresql://…] [--products 2000]

Prints one JSON object, in bytes with all indexes, and how many products a second one writer puts. The database is
to be empty; the default is a SQLite file that goes again. Image files count only by their hash.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sqlalchemy import text

from catalog.database import CatalogConfig, reading
from catalog.opening import Catalog, open_catalog
from core.types import IndexItem, NewImage, VectorRow
from demo.garments import COLORS, PATTERNS, TYPES
from milvus.schema import encode_rows

IMAGES_A_PRODUCT = 3
COLLECTIONS = ("openclip_000000000000", "dinov2_000000000000", "blip2_000000000000")
_SIZE = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": "SELECT pg_database_size(current_database())",
}


def main() -> None:
    """Fill a catalog and weigh it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--products", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vitrine-size-") as folder:
        url = options.url or f"sqlite:///{folder}/catalog.sqlite"
        catalog = open_catalog(CatalogConfig(database_url=url, blobs_url=str(Path(folder) / "blobs")))
        print(json.dumps(measure(catalog, options.products)))
        catalog.close()


def measure(catalog: Catalog, products: int) -> dict[str, float]:
    """Put products, then index their images in three collections, and see how the database grows."""
    images = products * IMAGES_A_PRODUCT
    started = time.perf_counter()
    of_products = _growth(catalog, lambda: _put(catalog, range(products), 0))
    took = time.perf_counter() - started
    of_images = _growth(catalog, lambda: _put(catalog, range(products, 2 * products), IMAGES_A_PRODUCT))
    of_ledger = _growth(catalog, lambda: _index(catalog))
    return {
        "bytes_a_product": round(of_products / products),
        "bytes_an_image": round((of_images - of_products) / images),
        "bytes_a_ledger_row": round(of_ledger / images / len(COLLECTIONS)),
        "bytes_a_collection_row": _collection_row(catalog),
        "products_per_s": round(products / took, 1),
    }


def _collection_row(catalog: Catalog) -> int:
    """Return the fields of a vector row: keys, and the attributes as JSON."""
    (product,) = catalog.products.page(1)
    item = IndexItem("f" * 32, 2**50, product.product_id, "", product.attributes)
    (row,) = encode_rows([VectorRow(item, np.ones(2, np.float32))], 2)
    del row["embedding"]
    return len(json.dumps(row).encode())


def _growth(catalog: Catalog, work: Callable[[], object]) -> int:
    before = _size(catalog)
    work()
    return _size(catalog) - before


def _size(catalog: Catalog) -> int:
    with reading(catalog.engine) as connection:
        return int(connection.scalar(text(_SIZE[catalog.engine.dialect.name])) or 0)


def _put(catalog: Catalog, numbers: range, images: int) -> None:
    for number in numbers:
        kind, color = TYPES[number % len(TYPES)], list(COLORS)[number % len(COLORS)]
        name = f"{color} {kind} {number}"
        attributes = {"type": kind, "color": color, "pattern": PATTERNS[0], "price": number % 100}
        files = [NewImage(f"{name} {n}".encode(), "image/jpeg", 1000, 1000) for n in range(images)]
        catalog.products.put(name.replace(" ", "-"), name, f"A {name}, for every day.", attributes, files)


def _index(catalog: Catalog) -> None:
    for collection in COLLECTIONS:
        while items := catalog.ledger.missing(collection, 500):
            catalog.ledger.open(collection, items)
            catalog.ledger.settle({collection: items})


if __name__ == "__main__":
    main()
