from demo.catalog import demo_looks, demo_products
from demo.queries import picture_queries, word_queries

PRODUCTS = 120


def test_words_are_answered_by_the_products_of_that_colour_and_type() -> None:
    looks = demo_looks(1, PRODUCTS)
    query = next(query for query in word_queries(1, PRODUCTS) if query.words == "red hat")
    assert query.relevant == {
        key for key, look in looks.items() if (look.colour, look.type) == ("red", "hat")
    }
    assert all(query.grades[product_id] == 2 for product_id in query.relevant)


def test_every_query_has_an_answer() -> None:
    queries = word_queries(1, PRODUCTS) + picture_queries(1, PRODUCTS, count=5)
    assert all(query.relevant for query in queries)


def test_grades_count_shared_attributes() -> None:
    looks = demo_looks(1, PRODUCTS)
    for query in picture_queries(1, PRODUCTS, count=5):
        asked = looks[next(iter(query.relevant))]
        for product_id, look in looks.items():
            shared = sum(a == b for a, b in zip(look.garment, asked.garment, strict=True))
            assert query.grades.get(product_id, 0) == shared


def test_a_query_picture_is_not_in_the_catalog() -> None:
    catalog = {picture for product in demo_products(1, 5) for picture in product.pictures}
    asked = {query.picture for query in picture_queries(1, 5, count=5)}
    assert len(asked) == 5
    assert asked.isdisjoint(catalog)
