import io

from PIL import Image

from demo.catalog import PICTURE_SIZE, demo_looks, demo_products
from demo.looks import COLOURS, TYPES


def test_the_same_seed_draws_the_same_bytes() -> None:
    assert list(demo_products(3, 4)) == list(demo_products(3, 4))


def test_a_longer_catalog_begins_like_a_shorter_one() -> None:
    assert list(demo_products(3, 2)) == list(demo_products(3, 4))[:2]


def test_another_seed_draws_other_pictures() -> None:
    assert next(demo_products(3, 1)).pictures != next(demo_products(4, 1)).pictures


def test_ids_are_distinct_and_tell_the_look() -> None:
    products = list(demo_products(5, 20))
    assert len({product.product_id for product in products}) == 20
    for product in products:
        assert product.product_id.split("-")[:3] == list(product.look.garment)


def test_looks_are_those_of_the_drawn_products() -> None:
    drawn = {product.product_id: product.look for product in demo_products(5, 6)}
    assert demo_looks(5, 6) == drawn


def test_each_hundred_products_hold_every_colour_of_every_type_once() -> None:
    pairs = [(look.type, look.colour) for look in demo_looks(5, 200).values()]
    everything = {(name, colour) for name in TYPES for colour in COLOURS}
    assert set(pairs[:100]) == everything
    assert set(pairs[100:]) == everything


def test_pictures_are_two_to_four_distinct_jpegs_of_the_page_size() -> None:
    for product in demo_products(5, 10):
        assert 2 <= len(set(product.pictures)) == len(product.pictures) <= 4
        for data in product.pictures:
            picture = Image.open(io.BytesIO(data))
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (PICTURE_SIZE,) * 2)


def test_titles_name_the_garment() -> None:
    for product in demo_products(5, 10):
        assert f"{product.look.colour} {product.look.type}" in product.title.lower()
        assert product.look.type in product.description
