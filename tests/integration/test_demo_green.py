""" "This, but in green": a picture and a sentence together, on every trained model with a text tower."""

import asyncio
from pathlib import Path

import pytest

from core.search import ModelSearch, Query, QueryPart
from core.types import IndexItem, VectorRow
from demo.catalog import demo_looks, demo_products
from demo.looks import COLOURS
from demo.queries import picture_queries
from demo.retrieval import embed_pictures
from milvus.memory import MemoryStore
from models.config import EncoderConfig, Family
from models.local import LocalEncoder
from models.registry import load_encoder

WEIGHTS = Path(__file__).parents[2] / "demo" / "weights"
PRODUCTS = 100
"""One of each type and colour, so that a single product is wanted."""
QUERIES = 20


@pytest.mark.parametrize("family", ["openclip", "blip2"])
def test_a_sentence_moves_a_picture_to_another_colour(family: Family) -> None:
    config = EncoderConfig(name=family, family=family, checkpoint=str(WEIGHTS / family), threads=2)
    encoder, store, looks = load_encoder(config), MemoryStore(), demo_looks(0, PRODUCTS)
    pictures = {product.product_id: product.pictures[0] for product in demo_products(0, PRODUCTS)}
    items = [IndexItem(product_id, 1, product_id, "0" * 64, {}) for product_id in pictures]
    vectors = embed_pictures(encoder, list(pictures.values()))
    store.ensure_collection(encoder.info.collection, encoder.info.dimension)
    store.upsert(encoder.info.collection, [VectorRow(*each) for each in zip(items, vectors, strict=True)])
    search = ModelSearch(LocalEncoder(encoder, decode_threads=1), store)
    found = kept = 0
    for number, query in enumerate(picture_queries(0, PRODUCTS, QUERIES)):
        assert query.picture is not None
        (shown,) = query.relevant
        type_, colours = looks[shown].type, list(COLOURS)
        colour = colours[(colours.index(looks[shown].colour) + 1 + number % 9) % len(colours)]
        parts = (QueryPart(query.picture), QueryPart(f"{colour} {type_}", 2.0))
        (best,) = asyncio.run(search.search(Query(parts, limit=1))).hits
        found += (looks[best.product_id].type, looks[best.product_id].colour) == (type_, colour)
        (same,) = asyncio.run(search.search(Query(parts[:1], limit=1))).hits
        kept += looks[same.product_id].colour == colour
    assert found >= 0.8 * QUERIES, f"{found} of {QUERIES} found"
    assert kept <= 0.1 * QUERIES, f"{kept} of {QUERIES} pictures have the colour without the sentence"
