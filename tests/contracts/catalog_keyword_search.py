"""Contract of every database with keyword search."""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, event, insert, select, text

from catalog.database import reading, utc_now, writing
from catalog.filters import compile_filter
from catalog.keyword_search import query_words
from catalog.opening import Catalog
from catalog.product_rows import lock_products, write_products
from catalog.tables import ProductRow
from core.ensemble import HybridSearch
from core.errors import DeadlineExceeded, InvalidInput
from core.filters import matches, parse_filter
from core.search import QueryPart, SearchQuery, SearchResult
from core.types import Attributes, NewImage, Product
from tests.support.filter_cases import cases

ENDLESS = """WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number)"""
"""Numbers without an end: whoever reads them all is stopped, or goes on for ever."""


ORDERS = ("gt", "gte", "lt", "lte")


def put(
    catalog: Catalog, product_id: str, title: str = "", description: str = "", **attributes: Any
) -> Product:
    image = NewImage(product_id.encode(), "image/png", 1, 1)
    return catalog.products.put(product_id, title, description, attributes, [image])[0]


def found(catalog: Catalog, words: str, limit: int = 10, **options: Any) -> list[str]:
    """The products that hold at least one of the words."""
    return [hit.product_id for hit in catalog.keyword_index.search(words, limit, every_word=False, **options)]


def write_attributes(engine: Engine, products: Sequence[Attributes]) -> None:
    """Put attributes into the table as they are, also such as no put lets in: null and nested objects."""
    now = utc_now()
    bare = {"title": "", "description": "", "revision": 1, "created_at": now, "updated_at": now}
    rows = [{"id": str(number), "attributes": each, **bare} for number, each in enumerate(products)]
    with writing(engine) as connection:
        connection.execute(delete(ProductRow))
        connection.execute(insert(ProductRow), rows)


def check_filters(
    engine: Engine, products: Sequence[Attributes], filters: Sequence[dict[str, Any]]
) -> list[bool]:
    """Hold each filter in SQL against Python; returns whether it selects some of the products and not all."""
    write_attributes(engine, products)
    selective = []
    for json in filters:
        filter = parse_filter(json)
        expected = {number for number, each in enumerate(products) if matches(filter, each)}
        found = select(ProductRow.id).where(compile_filter(filter, engine.dialect.name))
        with reading(engine) as connection:
            assert set(map(int, connection.scalars(found))) == expected, json
        selective.append(0 < len(expected) < len(products))
    return selective


def storable(value: Any) -> bool:
    """Return whether a database of the catalog can hold a value: no NUL, and numbers within 64 bits."""
    if isinstance(value, list):
        return all(map(storable, value))
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not (isinstance(value, str) and "\0" in value)


class KeywordContract:
    """Run on what the fixture `database_url` names."""

    def test_a_title_counts_more_than_a_description_and_both_words_more_than_one(
        self, catalog: Catalog
    ) -> None:
        for number in range(6):
            put(catalog, f"other-{number}", "Green hat", "Goes with anything.")
        put(catalog, "both", "Red dress", "Cotton.")
        put(catalog, "one", "Blue dress", "Cotton.")
        put(catalog, "text", "Green coat", "Goes with a red dress.")
        assert found(catalog, "red dress")[0] == "both"
        assert set(found(catalog, "red dress")) == {"both", "one", "text"}
        assert found(catalog, "cotton, or anything", limit=2)[0] in ("both", "one")

    def test_two_words_once_count_more_than_one_word_often(self, catalog: Catalog) -> None:
        put(catalog, "often", "Dress dress dress dress", "Dress, dress, dress.")
        put(catalog, "both", "Red dress")
        put(catalog, "other", "Hat")
        assert found(catalog, "red dress") == ["both", "often"]

    def test_every_word_can_be_asked_for(self, catalog: Catalog) -> None:
        put(catalog, "p", "Red T-shirt", brand="Elm")
        put(catalog, "q", "Red t shirt, long")
        put(catalog, "r", "Tshirt in red")
        for words, ids in [
            ("elm red", ["p"]),
            ("red shirt", ["p", "q"]),
            ("red T-shirt", ["p", "q"]),
            ("red tshirt", ["p", "r"]),
            ("red or blue", []),
            ("-red", ["p", "q", "r"]),
        ]:
            assert sorted(hit.product_id for hit in catalog.keyword_index.search(words, 10)) == ids

    def test_an_identifier_leads_to_its_product(self, catalog: Catalog) -> None:
        for number in range(30):
            put(
                catalog,
                f"AB-12{number:02d}/x".replace("/", "."),
                "A red dress",
                "A dress.",
                mpn=f"M{number}-7",
            )
        for words in ("AB-1217.x", "ab 1217 x", "ab1217x", "M17-7", "m177"):
            assert found(catalog, words)[0] == "AB-1217.x"

    @pytest.mark.parametrize(
        ("written", "asked"),
        [
            ("Größe", "GROSSE"),
            ("Straße", "strasse"),
            ("Robe d'été à carreaux", "ete"),
            ("Crème brûlée", "creme BRULEE"),
            ("T-Shirt", "tshirt"),
            ("tshirt", "T-Shirt"),
            ("Ёлка", "елка"),
            ("ΜΆΓΙΑ", "μαγια"),
            ("红色连衣裙", "连衣裙"),
            ("红色连衣裙", "裙"),
            ("ワンピース", "ワンピ"),
            ("원피스 빨강", "원피스"),
            ("iPhone手机壳", "手机"),
            ("ｆｕｌｌ ｗｉｄｔｈ", "full"),
            ("हिंदी कपड़े", "कपड़े"),
            ("ﬁne", "fine"),
            ("🧥 coat", "🧥coat"),
            ("007 1.5l", "007"),
            ("-123", "123"),
            ("www.marlow.com", "marlow"),
            ("or", "OR"),
            ("snake_case", "case"),
        ],
    )
    def test_words_are_found_however_they_are_written(
        self, catalog: Catalog, written: str, asked: str
    ) -> None:
        put(catalog, "p", written)
        put(catalog, "q", "something else")
        assert found(catalog, asked) == ["p"]

    def test_a_chinese_word_is_not_found_by_its_characters_in_another_order(self, catalog: Catalog) -> None:
        put(catalog, "p", "裙衣连")
        assert found(catalog, "连衣裙") == []

    def test_strings_of_attributes_are_found_and_numbers_and_names_are_not(self, catalog: Catalog) -> None:
        put(catalog, "p", brand="Marlow", tags=["summer", "beach"], price=1999, hidden=True)
        for words in ("marlow", "beach"):
            assert found(catalog, words) == ["p"]
        for words in ("1999", "brand", "hidden", "true"):
            assert found(catalog, words) == []

    def test_changes_are_found_at_once(self, catalog: Catalog) -> None:
        put(catalog, "p", "Red dress", brand="Elm")
        assert found(catalog, "red") == found(catalog, "elm") == ["p"]
        put(catalog, "p", "Blue coat", brand="Dune")
        assert found(catalog, "red") == found(catalog, "dress elm") == []
        assert found(catalog, "blue") == found(catalog, "dune") == ["p"]
        catalog.products.delete("p")
        assert found(catalog, "blue coat dune p") == []
        put(catalog, "p", "Red again")
        assert found(catalog, "red blue") == ["p"]
        self.check_index(catalog)

    def test_a_product_without_images_cannot_be_shown(self, catalog: Catalog) -> None:
        catalog.products.put("p", "Red dress", "", {}, [])
        assert found(catalog, "red") == []
        put(catalog, "p", "Red dress")
        assert found(catalog, "red") == ["p"]

    def test_a_hit_is_the_first_image_at_its_revision(self, catalog: Catalog) -> None:
        images = [NewImage(data, "image/png", 1, 1) for data in (b"one", b"two")]
        product, _ = catalog.products.put("p", "Red", "", {}, images)
        (hit,) = catalog.keyword_index.search("red", 5)
        assert (hit.image_id, hit.revision) == (product.images[0].image_id, product.images[0].revision)
        assert hit.score > 0

    def test_captions_are_found_while_the_image_is_there(self, catalog: Catalog) -> None:
        product = put(catalog, "p", "Dress")
        image_id = product.images[0].image_id
        catalog.captions.put("blip2", "0" * 12, [(image_id, "a woman on a beach")])
        assert found(catalog, "beach") == ["p"]
        put(catalog, "p", "Another dress")
        assert found(catalog, "beach") == ["p"]
        catalog.captions.put("blip2", "1" * 12, [(image_id, "a woman in a forest"), ("f" * 32, "nowhere")])
        assert found(catalog, "beach nowhere") == []
        assert found(catalog, "forest") == ["p"]
        catalog.products.put("p", "Dress", "", {}, [NewImage(b"other", "image/png", 1, 1)])
        assert found(catalog, "forest") == []

    def test_a_caption_written_during_a_put_waits_and_keeps_the_new_title(self, catalog: Catalog) -> None:
        product = put(catalog, "p", "Dress")
        caption = (product.images[0].image_id, "a beach")
        with ThreadPoolExecutor(1) as pool:
            with writing(catalog.engine) as connection:
                lock_products(connection, ["p"])
                write_products(connection, {"p": product}, [replace(product, title="Coat")])
                captioning = pool.submit(catalog.captions.put, "blip2", "0" * 12, [caption])
                time.sleep(0.3)
            captioning.result()
        assert [hit.product_id for hit in catalog.keyword_index.search("coat beach", 5)] == ["p"]
        assert found(catalog, "dress") == []

    def test_filters_and_exclusions_leave_full_pages(self, catalog: Catalog) -> None:
        for number in range(60):
            put(catalog, f"p{number:02d}", "Red dress", price=number)
        dear = parse_filter({"price": {"gte": 40}})
        assert len(found(catalog, "dress", 20, filter=dear)) == 20
        assert found(catalog, "dress", 100, filter=dear, exclude_products=["p41", "other"]) == [
            f"p{number}" for number in range(40, 60) if number != 41
        ]
        assert len(found(catalog, "dress", 50, exclude_products=[f"p0{n}" for n in range(10)])) == 50
        whole = found(catalog, "red", 60)
        assert [found(catalog, "red", n) for n in (1, 7, 59)] == [whole[:n] for n in (1, 7, 59)]
        assert all(
            matches(dear, catalog.products.get(each).attributes)
            for each in found(catalog, "red", 5, filter=dear)
        )

    def test_any_filter_means_in_sql_what_it_means_in_python(self, catalog: Catalog) -> None:
        selective = []

        @settings(max_examples=40, database=None, suppress_health_check=list(HealthCheck))
        @given(cases())
        def agree(case: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
            drawn, filters = case
            products = [
                {name: value for name, value in each.items() if storable(name) and storable(value)}
                for each in drawn
            ]
            selective.extend(check_filters(catalog.engine, products, filters))

        agree()
        assert sum(selective) > len(selective) / 20, "too few filters select some products"

    def test_what_databases_see_otherwise_means_the_same(self, catalog: Catalog) -> None:
        numbers = [2**53 + 1, 2**53, 2**53 - 1, 2**63 - 1, -(2**63), 1e308, -1.7e308, 0.1 + 0.2, 0.3, 5e-324]
        kinds = [0, -0.0, 1, 1.0, True, "1", "true", [1, "x"], [True], [], None, {"n": 1}, [[1]], [None]]
        texts = ["", "a", "a\x01", "ab", "A", "b", "\uffff", "\U0001f600", "ä", ["a", "b"], "\u00e4\\\"'"]
        products = [*({"n": n} for n in numbers + kinds), *({"s": s} for s in texts), {}]
        filters: list[dict[str, Any]] = [
            *({"n": {order: number}} for number in (*numbers, 2**63, 10**308, 0.5) for order in ORDERS),
            *({"s": {order: text}} for text in ("", "Z", "\uffff", "\0b", "a\0b") for order in ORDERS),
            *({"s": {"prefix": text}} for text in ("", "a", "a\0", "\U0001f600", "\u00e4\\")),
            *({"n": value} for value in (1, 1.0, True, "1", "true", 2**53 + 1, 0.1 + 0.2, 10**308)),
            *({"s": value} for value in ("a\0b", ["a\0", "a"], "b", [])),
            *({name: condition} for name in ("a\0", "n") for condition in ({"exists": False}, "a")),
            *({}, {"or": []}, {"or": [{}, {"n": 1}]}, {"and": [{}, {"or": [{"n": 1}]}]}),
        ]
        check_filters(catalog.engine, products, [some for each in filters for some in (each, {"not": each})])

    def test_the_largest_filters_are_answered(self, catalog: Catalog) -> None:
        put(catalog, "p", "Red dress", n=7, s="x")
        deep: dict[str, Any] = {"n": 7}
        for _ in range(15):
            deep = {"not": deep}
        for json, expected in [
            ({"or": [{"n": number} for number in range(-248, 8)]}, ["p"]),
            ({"and": [{"s": {"gt": ""}}] * 256}, ["p"]),
            ({"n": list(range(7, 1007))}, ["p"]),
            ({"s": [f"{number:01024}" for number in range(1000)]}, []),
            (deep, []),
            ({"or": [{}] * 5_000}, ["p"]),
        ]:
            assert found(catalog, "dress", filter=parse_filter(json)) == expected

    def test_a_search_that_timed_out_stops_in_the_database(self, catalog: Catalog) -> None:
        put(catalog, "p", "Red dress")

        def make_endless(_c: object, _u: object, statement: str, parameters: Any, *_: object) -> Any:
            if "AS score" in statement:
                statement = f"{ENDLESS}, found AS ({statement}) SELECT found.* FROM found, number"
            return statement, parameters

        event.listen(catalog.engine, "before_cursor_execute", make_endless, retval=True)
        stopped = threading.Event()
        event.listen(catalog.engine, "handle_error", lambda _: stopped.set())
        with pytest.raises(DeadlineExceeded):
            catalog.keyword_index.search("dress", 5, timeout_s=1.0)
        assert stopped.is_set()
        stopped.clear()

        async def unasked(query: SearchQuery) -> SearchResult:
            raise AssertionError(f"{query} is for words only")

        async def search() -> bool:
            hybrid = HybridSearch(unasked, catalog.keyword_index, deadline_s=1.0)
            with pytest.raises(DeadlineExceeded):
                await hybrid.search(SearchQuery((QueryPart("dress"),), limit=5, keyword_weight=1))
            # Nobody waits for the thread any more, and yet it comes to its end.
            return await asyncio.to_thread(stopped.wait, 60)

        assert asyncio.run(search())
        event.remove(catalog.engine, "before_cursor_execute", make_endless)
        assert found(catalog, "dress") == ["p"]

    def test_any_text_is_a_query(self, catalog: Catalog) -> None:
        put(catalog, "p", "Red dress and NEAR or not")

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            st.text(max_size=2000)
            | st.text(st.sampled_from("\"'\\()*:^-+&|!<>{}[]@~ aANDORTNEAR\0\ud800_"), max_size=60)
        )
        @example("x" * 2000)
        @example("a " * 1000)
        @example('"')
        @example("'; DROP TABLE products; --")
        @example("red\0dress")
        @example("title: red")
        @example("NEAR(red dress, 2)")
        @example("红" * 2000)
        def check(words: str) -> None:
            assert set(found(catalog, words)) <= {"p"}
            assert found(catalog, f"red {words[:50]}") == ["p"]

        check()
        assert query_words("\0 \" ' \\ !") == found(catalog, "") == []

    def test_the_longest_texts_are_kept_and_found(self, catalog: Catalog) -> None:
        han = "".join(map(chr, range(0x20000, 0x20000 + 20_000)))
        put(catalog, "han", han[:500], han, a=han[:8_000])
        put(catalog, "long", "x" * 500, "y" * 20_000)
        put(catalog, "dashes", "a-" * 250, "b-" * 10_000)
        put(catalog, "same", "same " * 100, "same " * 4_000)
        assert found(catalog, han[19:22]) == ["han"]
        assert found(catalog, "x" * 400) == ["long"]
        assert found(catalog, "b") == ["dashes"]
        assert found(catalog, "same") == ["same"]

    def test_a_limit_is_positive(self, catalog: Catalog) -> None:
        with pytest.raises(InvalidInput, match="not positive"):
            catalog.keyword_index.search("red", 0)

    def check_index(self, catalog: Catalog) -> None:
        """The engine's own check that its index agrees with the documents, where it has one."""
        if catalog.engine.dialect.name == "sqlite":
            with writing(catalog.engine) as connection:
                connection.execute(
                    text("INSERT INTO fulltext (fulltext, rank) VALUES ('integrity-check', 1)")
                )
        with reading(catalog.engine) as connection:
            strays = "SELECT count(*) FROM documents WHERE product_id NOT IN (SELECT id FROM products)"
            assert connection.scalar(text(strays)) == 0
