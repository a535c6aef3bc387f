"""Synthetic catalog of the demo: captions, products and labeled queries."""

import io

import numpy as np
import pytest
from PIL import Image

from demo.catalog import IMAGE_SIZE, demo_designs, demo_products
from demo.garments import COLORS, PLURALS, TYPES, WORDS, Design, caption, random_caption
from demo.labels import image_queries, text_queries

DESIGN = Design("dress", "red", "striped", "wooden")


@pytest.mark.parametrize(
    ("attributes", "prefix", "words"),
    [
        (["color", "pattern"], "a ", "a red striped dress"),
        (["pattern", "color"], "", "striped red dress"),
        (["color"], "a photo of a ", "a photo of a red dress"),
        (["color", "background"], "a ", "a red dress on a wooden background"),
        ([], "", "dress"),
    ],
)
def test_a_caption_names_what_is_asked_for(attributes: list[str], prefix: str, words: str) -> None:
    assert caption(DESIGN, attributes, prefix) == words


def test_a_random_caption_names_exactly_what_it_reports() -> None:
    rng = np.random.default_rng(0)
    vocabularies = ({"dress", "dresses"}, {"red"}, {"striped"}, {"wooden"})
    for _ in range(200):
        words, mentioned = random_caption(DESIGN, rng)
        assert tuple(bool(names & set(words.split())) for names in vocabularies) == mentioned


def test_every_word_of_a_random_caption_is_in_the_vocabulary() -> None:
    rng = np.random.default_rng(1)
    words = {word for _ in range(200) for word in random_caption(DESIGN, rng)[0].split()}
    assert words <= set(WORDS)


def test_plurals_are_english() -> None:
    assert (PLURALS["dress"], PLURALS["hat"], PLURALS["shorts"]) == ("dresses", "hats", "shorts")


def test_the_same_seed_draws_the_same_bytes() -> None:
    assert list(demo_products(3, 4)) == list(demo_products(3, 4))


def test_a_longer_catalog_begins_like_a_shorter_one() -> None:
    assert list(demo_products(3, 2)) == list(demo_products(3, 4))[:2]


def test_another_seed_draws_other_images() -> None:
    assert next(demo_products(3, 1)).images != next(demo_products(4, 1)).images


def test_ids_are_distinct_and_name_the_design() -> None:
    products = list(demo_products(5, 20))
    assert len({product.product_id for product in products}) == 20
    for product in products:
        assert product.product_id.split("-")[:3] == list(product.design.garment)


def test_looks_are_those_of_the_drawn_products() -> None:
    drawn = {product.product_id: product.design for product in demo_products(5, 6)}
    assert demo_designs(5, 6) == drawn


def test_each_hundred_products_hold_every_color_of_every_type_once() -> None:
    pairs = [(design.type, design.color) for design in demo_designs(5, 200).values()]
    everything = {(name, color) for name in TYPES for color in COLORS}
    assert set(pairs[:100]) == everything
    assert set(pairs[100:]) == everything


def test_images_are_two_to_four_distinct_jpegs_of_the_page_size() -> None:
    for product in demo_products(5, 10):
        assert 2 <= len(set(product.images)) == len(product.images) <= 4
        for data in product.images:
            image = Image.open(io.BytesIO(data))
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (IMAGE_SIZE,) * 2)


def test_titles_name_the_garment() -> None:
    for product in demo_products(5, 10):
        assert f"{product.design.color} {product.design.type}" in product.title.lower()
        assert product.design.type in product.description


PRODUCTS = 120


def test_words_are_answered_by_the_products_of_that_color_and_type() -> None:
    designs = demo_designs(1, PRODUCTS)
    query = next(query for query in text_queries(1, PRODUCTS) if query.text == "red hat")
    assert query.relevant == {
        key for key, design in designs.items() if (design.color, design.type) == ("red", "hat")
    }
    assert all(query.grades[product_id] == 2 for product_id in query.relevant)


def test_every_query_has_an_answer() -> None:
    queries = text_queries(1, PRODUCTS) + image_queries(1, PRODUCTS, count=5)
    assert all(query.relevant for query in queries)


def test_grades_count_shared_attributes() -> None:
    designs = demo_designs(1, PRODUCTS)
    for query in image_queries(1, PRODUCTS, count=5):
        asked = designs[next(iter(query.relevant))]
        for product_id, design in designs.items():
            shared = sum(a == b for a, b in zip(design.garment, asked.garment, strict=True))
            assert query.grades.get(product_id, 0) == shared


def test_a_query_image_is_not_in_the_catalog() -> None:
    catalog = {image for product in demo_products(1, 5) for image in product.images}
    asked = {query.image for query in image_queries(1, 5, count=5)}
    assert len(asked) == 5
    assert asked.isdisjoint(catalog)
