"""What every database of the catalog must find by words."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from alembic import command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from catalog.lexical.words import query_words
from catalog.migrate import alembic_config, migrate
from catalog.opening import Catalog
from catalog.product_rows import lock_product, write_product
from catalog.transactions import reading, writing
from core.errors import InvalidInput
from core.filters import matches, parse_filter
from core.types import NewPicture, Product


def put(
    catalog: Catalog, product_id: str, title: str = "", description: str = "", **attributes: Any
) -> Product:
    picture = NewPicture(product_id.encode(), "image/png", 1, 1)
    return catalog.products.put(product_id, title, description, attributes, [picture])[0]


def found(catalog: Catalog, words: str, limit: int = 10, **options: Any) -> list[str]:
    """The products that hold at least one of the words."""
    return [hit.product_id for hit in catalog.lexical.search(words, limit, every_word=False, **options)]


class LexicalContract:
    """Run by a class that defines the fixture `database_url`."""

    def test_a_title_counts_more_than_a_description_and_both_words_more_than_one(
        self, catalog: Catalog
    ) -> None:
        for number in range(6):
            put(catalog, f"other-{number}", "Green hat", "Goes with anything.")
        put(catalog, "both", "Red dress", "Cotton.")
        put(catalog, "one", "Blue dress", "Cotton.")
        put(catalog, "told", "Green coat", "Goes with a red dress.")
        assert found(catalog, "red dress")[0] == "both"
        assert set(found(catalog, "red dress")) == {"both", "one", "told"}
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
            assert sorted(hit.product_id for hit in catalog.lexical.search(words, 10)) == ids

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

    def test_a_product_without_pictures_cannot_be_shown(self, catalog: Catalog) -> None:
        catalog.products.put("p", "Red dress", "", {}, [])
        assert found(catalog, "red") == []
        put(catalog, "p", "Red dress")
        assert found(catalog, "red") == ["p"]

    def test_a_hit_is_the_first_picture_at_its_revision(self, catalog: Catalog) -> None:
        pictures = [NewPicture(data, "image/png", 1, 1) for data in (b"one", b"two")]
        product, _ = catalog.products.put("p", "Red", "", {}, pictures)
        (hit,) = catalog.lexical.search("red", 5)
        assert (hit.image_id, hit.revision) == (product.pictures[0].image_id, product.pictures[0].revision)
        assert hit.score > 0

    def test_captions_are_found_while_the_picture_is_there(self, catalog: Catalog) -> None:
        product = put(catalog, "p", "Dress")
        image_id = product.pictures[0].image_id
        catalog.captions.put("blip2", "0" * 12, [(image_id, "a woman on a beach")])
        assert found(catalog, "beach") == ["p"]
        put(catalog, "p", "Another dress")
        assert found(catalog, "beach") == ["p"]
        catalog.captions.put("blip2", "1" * 12, [(image_id, "a woman in a forest"), ("f" * 32, "nowhere")])
        assert found(catalog, "beach nowhere") == []
        assert found(catalog, "forest") == ["p"]
        catalog.products.put("p", "Dress", "", {}, [NewPicture(b"other", "image/png", 1, 1)])
        assert found(catalog, "forest") == []

    def test_a_caption_written_during_a_put_waits_and_keeps_the_new_title(self, catalog: Catalog) -> None:
        product = put(catalog, "p", "Dress")
        caption = (product.pictures[0].image_id, "a beach")
        with ThreadPoolExecutor(1) as pool:
            with writing(catalog.engine) as connection:
                lock_product(connection, "p")
                write_product(connection, product, replace(product, title="Coat"))
                captioning = pool.submit(catalog.captions.put, "blip2", "0" * 12, [caption])
                time.sleep(0.3)
            captioning.result()
        assert [hit.product_id for hit in catalog.lexical.search("coat beach", 5)] == ["p"]
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
            catalog.lexical.search("red", 0)

    def test_products_from_before_the_index_are_found_after_the_migration(self, catalog: Catalog) -> None:
        for number in range(1_100):
            put(catalog, f"p{number}", f"Dress number{number}")
        image_id = catalog.products.get("p7").pictures[0].image_id
        catalog.captions.put("blip2", "0" * 12, [(image_id, "a beach")])
        with writing(catalog.engine) as connection:
            command.downgrade(alembic_config(connection), "0003")
        migrate(catalog.engine)
        assert found(catalog, "number1099") == ["p1099"]
        assert found(catalog, "beach") == ["p7"]
        assert len(found(catalog, "dress", 2_000)) == 1_100
        self.check_index(catalog)

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
