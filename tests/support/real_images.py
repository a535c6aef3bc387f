"""What the tests with real images share: EfficientNet-Lite0 with its real weights, and how many images take part."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from models.config import EncoderConfig
from models.encoder import Encoder, LocalEncoder, load_encoder
from tests.support.local_service import local_service, served
from vitrine import Vitrine
from vitrine.cli.trying import DEFAULT_MODEL
from vitrine.schemas.search import SearchResponse

ALL = os.environ.get("VITRINE_REAL_IMAGES") == "all"
"""Whether all images take part; by default fewer do, so that the tests take minutes."""
MODEL = DEFAULT_MODEL["name"]
CORES = len(os.sched_getaffinity(0))
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
def real_shop(folder: Path) -> Iterator[Vitrine]:
    """Serve an empty catalog over HTTP from this process, with the real model alone."""
    encoders = {MODEL: LocalEncoder(real_encoder(), CORES)}
    with local_service(folder, encoders) as app, served(app) as url, Vitrine(url, key="") as shop:
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
