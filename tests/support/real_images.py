"""What the tests with real images share: EfficientNet-Lite0 with its real weights, and how many images take part.

`python -m tests.support.real_images FOLDER` writes 1,000 photographs, to measure `vitrine try`.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import TypeVar

from PIL import Image

from core.indexing import Indexer
from milvus.memory import MemoryStore
from models.config import EncoderConfig
from models.encoder import Encoder, load_encoder
from models.local_encoder import LocalEncoder
from tests.support.corpora import PHOTOGRAPHS, photographs
from tests.support.indexed import repair
from tests.support.local_service import local_service, served
from vitrine import NewProduct, Vitrine
from vitrine.cli.trying import DEFAULT_MODEL
from vitrine.schemas.search import SearchResponse

ALL = os.environ.get("VITRINE_REAL_IMAGES") == "all"
"""Whether all images take part; by default fewer do, so that the tests take minutes."""
MODEL = DEFAULT_MODEL["name"]
CORES = len(os.sched_getaffinity(0))
ALBUM_SIZE = (1600, 1200)
_AT_ONCE = 8
Input = TypeVar("Input")
Output = TypeVar("Output")


def encoder_args() -> dict[str, object]:
    """Return the arguments of the encoder, as `vitrine try` has them."""
    return {**DEFAULT_MODEL, "threads": CORES}


@cache
def real_encoder() -> Encoder:
    """Load the model, once for all tests of this process."""
    return load_encoder(EncoderConfig.model_validate({**encoder_args(), "device": "cpu"}))


@contextmanager
def real_shop(folder: Path, products: Iterable[NewProduct]) -> Iterator[Vitrine]:
    """Serve these products over HTTP from this process, with the real model alone; all are indexed."""
    encoder, store = LocalEncoder(real_encoder(), CORES), MemoryStore()
    with (
        local_service(folder, {MODEL: encoder}, store) as app,
        served(app) as url,
        Vitrine(url, key="") as shop,
    ):
        assert shop.put_products(products, max_operations=20).errors == []
        # A slow machine leaves to the repair what a write did not wait for.
        catalog = app.state.services.catalog
        asyncio.run(repair(Indexer(encoder, store, catalog.ledger, catalog.blobs)))
        yield shop


def at_once(call: Callable[[Input], Output], inputs: Sequence[Input]) -> list[Output]:
    """Call with each input, several at once; returns the outputs in order."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(call, inputs))


def rank(answer: SearchResponse, product_id: str) -> int | None:
    """Return the place of the product among the results, from 1; None where it is not among them."""
    found = [hit.product_id for hit in answer.results]
    return found.index(product_id) + 1 if product_id in found else None


def recall(ranks: Sequence[int | None], k: int) -> float:
    """Compute the share of queries whose one answer is among the first k."""
    return sum(each is not None and each <= k for each in ranks) / len(ranks)


def write_album(folder: Path, count: int = 1000) -> None:
    """Write crops of 1600 × 1200 pixels of public photographs, as JPEG; they may overlap."""
    files = [file for package in PHOTOGRAPHS for file in photographs(package)]
    folder.mkdir(parents=True)
    random = Random(7)
    for number, file in enumerate(files):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        for place in range(number, count, len(files)):
            width = random.uniform(0.4, 1.0) * min(image.width, image.height * 4 / 3)
            left, top = (
                random.uniform(0, image.width - width),
                random.uniform(0, image.height - width * 3 / 4),
            )
            box = (left, top, left + width, top + width * 3 / 4)
            crop = image.resize(ALBUM_SIZE, Image.Resampling.LANCZOS, box, reducing_gap=2)
            crop.save(folder / f"{place:04d}.jpg", quality=90)


if __name__ == "__main__":
    write_album(Path(sys.argv[1]))
