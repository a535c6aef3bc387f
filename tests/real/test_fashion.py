"""Fashion-MNIST: garments are imported and built in bulk, and the kind of others is that of their neighbors."""

import csv
import gzip
import io
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from catalog.opening import open_catalog
from demo.service import write_configuration
from jobs.runner.settings import settings_of_file
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from tests.support.children import Child
from tests.support.corpora import fashion_mnist
from tests.support.real_images import ALL, MODEL, at_once, encoder_args, real_encoder
from tests.support.vector_stores import LiteProcess, wait_for

GARMENTS = 10_000 if ALL else 1_500
"""So many of the training images are indexed, and so many of the test images ask."""
NEIGHBORS = 5
LEAST_ACCURACY, LEAST_MAP = 0.80, 0.45
_BATCH = 64


@dataclass(frozen=True)
class Garments:
    """PNG files of 28 × 28 gray pixels, and the numbers of their kinds."""

    images: list[bytes]
    kinds: NDArray[np.uint8]


def garments(name: str) -> Garments:
    """Read the first images of the set `train` or `t10k`."""
    folder = fashion_mnist()
    pixels = _numbers(folder / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:GARMENTS]
    kinds = _numbers(folder / f"{name}-labels-idx1-ubyte.gz", 8)[:GARMENTS]
    return Garments([_png(each) for each in pixels], kinds)


def _numbers(file: Path, header_bytes: int) -> NDArray[np.uint8]:
    with gzip.open(file) as content:
        return np.frombuffer(content.read(), np.uint8, offset=header_bytes)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Index:
    """What the build has written."""

    store: MilvusStore
    collection: str
    kinds: dict[str, int]
    """Kind of each product."""
    keys: dict[str, int]
    """Kind of each row."""


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    indexed = garments("train")
    # A short path: the address of Milvus Lite is a unix socket in this folder.
    with tempfile.TemporaryDirectory(prefix="vitrine-") as name:
        folder = Path(name)
        (folder / "images").mkdir()
        kinds = {}
        with (folder / "garments.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("product_id", "kind", "image"))
            for number, (image, kind) in enumerate(zip(indexed.images, indexed.kinds, strict=True)):
                (folder / f"images/{number}.png").write_bytes(image)
                writer.writerow((f"garment-{number}", int(kind), f"images/{number}.png"))
                kinds[f"garment-{number}"] = int(kind)
        config = folder / "serve_config.yaml"
        write_configuration(config, encoder_args(), folder)
        owner = LiteProcess(folder)
        config.write_text(config.read_text().replace(f"unix:{folder}/milvus.sock", owner.uri))
        owner.start()
        store = MilvusStore(MilvusConfig(uri=owner.uri))
        try:
            wait_for(store, 60)
            every_column = '{"fields": {"rest_as_attributes": true}}'
            _run(config, "import", folder / "garments.csv", "--options", every_column)
            _run(config, "build", "--model", MODEL)
            catalog = open_catalog(settings_of_file(config).catalog)
            (version,) = catalog.ledger.versions()
            counts = catalog.ledger.counts(version.collection)
            assert (counts.indexed, counts.failed, counts.missing) == (len(kinds), 0, 0)
            keys = {
                f"{image.image_id}:{image.revision}": kinds[product_id]
                for some in (list(kinds)[start : start + 500] for start in range(0, len(kinds), 500))
                for product_id, product in catalog.products.get_many(some).items()
                for image in product.images
            }
            catalog.close()
            yield Index(store, version.collection, kinds, keys)
        finally:
            store.close()
            owner.kill()


def _run(config: Path, *command: Any) -> None:
    """Run a command of the command line without a service, to its end."""
    words = [sys.executable, "-m", "vitrine.cli.main", *map(str, command), "--local", "--config", str(config)]
    with Child(str(command[0]), words, env={**os.environ, "COLUMNS": "1000"}) as child:
        assert child.wait(timeout=1800) == 0, child.output()


@pytest.fixture(scope="module")
def asking() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Encode the test images; returns the vectors (n, dimension) and the kinds."""
    encoder, tested = real_encoder(), garments("t10k")
    vectors: list[Any] = []
    for start in range(0, GARMENTS, _BATCH):
        decoded = [encoder.decode(image) for image in tested.images[start : start + _BATCH]]
        vectors += encoder.encode_images(decoded)
    return np.stack(vectors), tested.kinds


def test_the_nearest_garments_are_mostly_of_the_same_kind(
    index: Index, asking: tuple[NDArray[np.float32], NDArray[np.uint8]]
) -> None:
    def kind_of(vector: NDArray[np.float32]) -> int:
        hits = index.store.search_products(index.collection, vector, NEIGHBORS)
        # Of kinds that are as frequent, the first counted is that of the nearest.
        return Counter(index.kinds[hit.product_id] for hit in hits).most_common(1)[0][0]

    vectors, kinds = asking
    accuracy = float(np.mean(np.array(at_once(kind_of, list(vectors))) == kinds))
    print(f"{GARMENTS:,} indexed, {GARMENTS:,} ask: accuracy of {NEIGHBORS} neighbors {accuracy:.3f}")
    assert accuracy >= LEAST_ACCURACY


def test_garments_of_the_same_kind_rank_before_others(
    index: Index, asking: tuple[NDArray[np.float32], NDArray[np.uint8]]
) -> None:
    keys = list(index.keys)
    stored: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(keys), 500):
        stored |= index.store.fetch(index.collection, keys[start : start + 500])
    indexed = np.stack([stored[key] for key in keys])
    of_indexed = np.array([index.keys[key] for key in keys])
    precisions: list[float] = []
    for vector, kind in zip(*asking, strict=True):
        relevant = of_indexed[np.argsort(-(indexed @ vector))] == kind
        places = np.flatnonzero(relevant) + 1
        precisions.append(float(np.mean(np.arange(1, len(places) + 1) / places)))
    mean = float(np.mean(precisions))
    chance = float(np.mean(of_indexed == of_indexed[0]))
    print(
        f"{GARMENTS:,} indexed, {GARMENTS:,} ask: mean average precision {mean:.3f}; by chance {chance:.3f}"
    )
    assert mean >= LEAST_MAP
