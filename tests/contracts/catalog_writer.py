"""A process that puts products until it is done or killed; each line it prints is an acknowledged id.

Arguments: database URL, blobs URL, a name, how many products, bytes of each image.
"""

import os
import sys

from catalog.database import CatalogConfig
from catalog.opening import open_catalog
from core.types import NewImage


def write(database_url: str, blobs_url: str, name: str, count: int, size: int) -> None:
    """Put `count` products and, after each, one that all writers share."""
    catalog = open_catalog(CatalogConfig(database_url=database_url, blobs_url=blobs_url))
    for number in range(count):
        image = NewImage(os.urandom(size), "image/png", 1, 1)
        product, _ = catalog.products.put(f"{name}-{number}", name, "", {"number": number}, [image])
        print(product.product_id, flush=True)
        catalog.products.put("shared", f"{name}-{number}", "", {"by": name}, [image])
    catalog.close()


write(*sys.argv[1:4], *map(int, sys.argv[4:6]))  # type: ignore[arg-type]
