"""What `max_false_match_rate` does with the demo's trained weights: rates are measured and printed."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.calibration import Form, NullSample, null_scores, smallest_match
from demo.catalog import demo_products
from demo.queries import picture_queries, word_queries
from demo.retrieval import embed_pictures, embed_words
from models.config import EncoderConfig, Family
from models.encoder import Encoder
from models.registry import load_encoder

WEIGHTS = Path(__file__).parents[2] / "demo" / "weights"
HELD_OUT = ("shoe", "hat")
SEED, PRODUCTS = 0, 250
PICTURE: Form = (("image", 1.0),)
WORDS: Form = (("text", 1.0),)
FOREIGN = (
    "stock market news", "quarterly tax report", "a barking dog", "helicopter", "chicken soup recipe",
    "football match", "wireless headphones", "piano lesson", "electric drill", "train ticket",
)  # fmt: skip


def load(name: Family) -> Encoder:
    return load_encoder(EncoderConfig(name=name, family=name, checkpoint=str(WEIGHTS / name), threads=2))


def catalog_without(encoder: Encoder, types: Sequence[str]) -> NullSample:
    """Every product of other types, by its first two pictures."""
    products = [each for each in demo_products(SEED, PRODUCTS) if each.look.type not in types]
    return NullSample(
        pictures=embed_pictures(encoder, [data for each in products for data in each.pictures[:2]]),
        starts=np.arange(len(products)) * 2,
        words=embed_words(encoder, [each.title for each in products]),
        worded=np.ones(len(products), np.bool_),
    )


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def answered(catalog: NullSample, queries: NDArray[np.float32], form: Form, rate: float) -> float:
    """The share of queries that find anything."""
    minimum = smallest_match(null_scores(catalog, form, 0.01), rate)
    return float(np.mean((queries @ catalog.pictures.T).max(axis=1) >= minimum))


def test_pictures_of_what_the_catalogue_lacks_find_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    encoder = load("openclip")
    catalog = catalog_without(encoder, HELD_OUT)
    queries = picture_queries(SEED, PRODUCTS, 120)
    kinds = [next(iter(query.relevant)).split("-")[0] for query in queries]
    vectors = embed_pictures(encoder, [query.picture or b"" for query in queries])
    stranger = np.array([kind in HELD_OUT for kind in kinds])
    noisy = embed_pictures(encoder, [noise(seed) for seed in range(20)])
    for rate in (0.1, 0.01):
        own = answered(catalog, vectors[~stranger], PICTURE, rate)
        held_out = answered(catalog, vectors[stranger], PICTURE, rate)
        of_noise = answered(catalog, noisy, PICTURE, rate)
        with capsys.disabled():
            print(f"\nrate {rate}: answered {own:.2f} of pictures like the catalogue's, ", end="")
            print(f"{held_out:.2f} of {stranger.sum()} of types that it lacks, {of_noise:.2f} of noise")
        assert own >= 0.95
        assert held_out <= 0.1
    # Noise is outside of the promise, which is about pictures like the catalogue's.
    assert of_noise <= 0.05


def test_words_of_another_world_find_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    # Not OpenCLIP: to its demo tokenizer all unknown words are one, which lies among the garments.
    encoder = load("blip2")
    catalog = catalog_without(encoder, HELD_OUT)
    words = [query.words or "" for query in word_queries(SEED, PRODUCTS)]
    held_out = [each for each in words if any(kind in each for kind in HELD_OUT)]
    own = [each for each in words if each not in held_out]
    shares = [
        answered(catalog, embed_words(encoder, some), WORDS, 0.1) for some in (own, held_out, list(FOREIGN))
    ]
    with capsys.disabled():
        print("\nrate 0.1: answered {:.2f} of words for the catalogue's garments, ".format(*shares), end="")
        print("{1:.2f} for types that it lacks, {2:.2f} of another world".format(*shares))
    assert shares[0] >= 0.95
    # Titles hold more words than these queries, so the rate is near, not kept.
    assert shares[1] <= 0.3
    assert shares[2] == 0
