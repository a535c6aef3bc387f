"""Contract of every database with products and captions."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import delete

from catalog.captions import SqlCaptions
from catalog.database import writing
from catalog.opening import Catalog
from catalog.products import SqlProducts
from catalog.tables import ProductRow
from core.errors import Internal, InvalidInput, NotFound
from core.types import CaptionCounts, NewImage
from tests.support.catalog_fixtures import BLUE, GREEN, RED, Clock


class ProductsContract:
    """Run on what the fixture `database_url` names."""

    @pytest.fixture(autouse=True)
    def _opened(self, catalog: Catalog, products: SqlProducts, clock: Clock) -> None:
        self.catalog, self.products, self.clock = catalog, products, clock

    def test_a_product_is_read_as_it_was_put(self) -> None:
        attributes = {"price": 10.0, "color": "rød", "sizes": [1, 2.5, "XL", True], "b": False, "a": 2**53}
        put, is_new = self.products.put("shirt-1", "A shirt", "Soft.", attributes, [RED, BLUE])
        assert is_new
        assert self.products.get("shirt-1") == put
        assert list(put.attributes) == ["price", "color", "sizes", "b", "a"]
        assert repr(self.products.get("shirt-1").attributes) == repr(attributes)
        assert [each.position for each in put.images] == [0, 1]
        red = put.images[0]
        assert (red.media_type, red.width, red.height, red.bytes) == ("image/jpeg", 20, 30, len(RED.data))
        assert [self.catalog.blobs.get(each.sha256) for each in put.images] == [RED.data, BLUE.data]
        assert self.products.image(red.image_id) == red
        assert put.created_at.utcoffset() is not None

    def test_an_identical_put_changes_nothing(self) -> None:
        first, _ = self.products.put("p", "t", "d", {"a": 1, "b": [2]}, [RED, BLUE])
        self.clock.move(10)
        again, is_new = self.products.put("p", "t", "d", {"b": [2], "a": 1}, [RED, BLUE])
        assert not is_new
        assert again == first == self.products.get("p")

    def test_a_new_title_moves_the_product_and_not_its_images(self) -> None:
        first, _ = self.products.put("p", "t", "d", {}, [RED])
        self.clock.move(10)
        second, _ = self.products.put("p", "other", "d", {}, [RED])
        assert second.images == first.images
        assert second.revision > first.revision
        assert (second.created_at, second.updated_at) == (first.created_at, self.clock.now)

    @pytest.mark.parametrize("changed", [1.0, True, "1", [1], 2])
    def test_changed_attributes_move_every_image(self, changed: Any) -> None:
        first, _ = self.products.put("p", "t", "d", {"a": 1}, [RED, BLUE])
        second, _ = self.products.put("p", "t", "d", {"a": changed}, None)
        assert repr(self.products.get("p").attributes["a"]) == repr(changed)
        for before, after in zip(first.images, second.images, strict=True):
            assert after.image_id == before.image_id
            assert after.revision > before.revision

    def test_the_same_image_in_two_products_is_two_images_of_one_file(self) -> None:
        one, _ = self.products.put("one", "t", "d", {}, [RED])
        two, _ = self.products.put("two", "t", "d", {}, [RED])
        assert one.images[0].sha256 == two.images[0].sha256
        assert one.images[0].image_id != two.images[0].image_id

    @pytest.mark.parametrize("seconds", [0, 1, -3600])
    def test_a_revision_never_repeats(self, seconds: float) -> None:
        seen = set()
        for round_ in range(4):
            self.clock.move(seconds)
            product, _ = self.products.put("p", "t", "d", {"round": round_ % 2}, [RED])
            seen.add(product.images[0].revision)
            self.clock.move(seconds)
            self.products.put("p", "t", "d", {"round": round_ % 2}, [])
            product, _ = self.products.put("p", "t", "d", {"round": round_ % 2}, [RED])
            seen.add(product.images[0].revision)
            self.products.delete("p")
        assert len(seen) == 8
        assert max(seen) < 2**63

    def test_a_deleted_product_is_gone(self) -> None:
        product, _ = self.products.put("p", "t", "d", {}, [RED])
        self.products.delete("p")
        assert self.products.counts() == (0, 0)
        image_id = product.images[0].image_id
        for look, gone in (
            (self.products.get, "p"),
            (self.products.delete, "p"),
            (self.products.image, image_id),
        ):
            with pytest.raises(NotFound):
                look(gone)

    def test_pages_follow_the_code_points_of_the_ids(self) -> None:
        ids = ["a", "B", "b", "ä", "z", "é", "衣服", "👕", "a b", "a-b", "A", "0", "a%", "a'\"\\"]
        for each in ids:
            self.products.put(each, "t", "d", {}, [RED])
        seen: list[str] = []
        while page := self.products.page(4, seen[-1] if seen else None):
            assert all(len(each.images) == 1 for each in page)
            seen += [each.product_id for each in page]
        assert seen == sorted(ids)

    def test_a_sample_is_of_products_with_images_and_stays(self) -> None:
        for number in range(12):
            images = [RED, BLUE, GREEN] if number % 2 else [RED]
            self.products.put(f"p{number}", "t", "d", {}, images if number < 10 else [])
        first = self.products.sample(4)
        assert len({each.product_id for each in first}) == 4
        assert first == self.products.sample(4) == self.products.sample(7)[:4]
        assert sorted(each.product_id for each in self.products.sample(99)) == [f"p{n}" for n in range(10)]
        kept = self.products.sample(3)[1:]
        self.products.delete(self.products.sample(1)[0].product_id)
        assert self.products.sample(2) == kept

    def test_many_are_read_in_the_order_asked_for(self) -> None:
        for each in "abc":
            self.products.put(each, each, "", {}, [RED])
        found = self.products.get_many(["c", "missing", "a", "c", "nul\0", ""])
        assert list(found) == ["c", "a"]
        assert found["c"] == self.products.get("c")
        assert self.products.get_many([f"p{number}" for number in range(12_000)]) == {}

    def test_an_id_that_stands_for_bytes_which_are_not_utf8_is_given_to_no_product(self) -> None:
        with pytest.raises(InvalidInput, match=r"U\+FFFD") as refused:
            self.products.put("a\ufffd", "t", "d", {}, [])
        assert refused.value.param == "product_id"
        assert self.products.page(1, after="a\ufffd") == []

    @pytest.mark.parametrize(
        "bad", ["", "x" * 201, "a/b", "a\nb", "nul\0", "\x7f", "\x85", "half \ud800", ".", ".."]
    )
    def test_an_impossible_id_is_refused_and_never_found(self, bad: str) -> None:
        with pytest.raises(InvalidInput, match="product id") as refused:
            self.products.put(bad, "t", "d", {}, [])
        assert refused.value.param == "product_id"
        with pytest.raises(InvalidInput):
            self.products.page(1, after=bad)
        for look in (self.products.get, self.products.delete, self.products.image):
            with pytest.raises(NotFound):
                look(bad)

    @pytest.mark.parametrize(
        ("attributes", "says"),
        [
            ({"price": float("nan")}, "'price' is not a finite number"),
            ({"price": [1, float("inf")]}, "'price' is not a finite number"),
            ({"price": 2**53 + 1}, "'price' is beyond 2"),
            ({"ext": [7205759403792793601]}, "send it as a text"),
            ({"maker": {"name": "x"}}, "'maker' must be a string"),
            ({"maker": [["x"]]}, "'maker' must be a string"),
            ({"maker": None}, "'maker' must be a string"),
            ({"text": "nul\0"}, "'text' holds a NUL"),
            ({"text": "half \ud800"}, "'text' holds a NUL or half"),
            ({"": 1}, "attribute name ''"),
            ({"k" * 101: 1}, "attribute name 'kkk"),
            ({"a\tb": 1}, "attribute name"),
            ({"small": 1, "large": "é" * 20_000}, "the largest is 'large' with 40012"),
        ],
    )
    def test_attributes_that_cannot_be_kept_are_named(self, attributes: dict[str, Any], says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            self.products.put("p", "t", "d", attributes, [RED])
        assert self.products.counts() == (0, 0)

    def test_texts_that_cannot_be_kept_are_named(self) -> None:
        for title, description, says in [
            ("t" * 501, "", "the title has 501 characters"),
            ("", "d" * 20_001, "the description has 20001 characters"),
            ("nul\0", "", "the title holds a NUL"),
        ]:
            with pytest.raises(InvalidInput, match=says):
                self.products.put("p", title, description, {}, [])

    def test_the_largest_product_is_kept(self) -> None:
        attributes = {"k" * 100: "🧥" * 8_000}
        self.products.put("🧥" * 200, "t" * 500, "衣" * 20_000, attributes, [RED])
        assert self.products.get("🧥" * 200).attributes == attributes

    def test_writers_of_one_product_in_many_threads_take_turns(self) -> None:
        def write(number: int) -> int:
            image = NewImage(f"image {number}".encode(), "image/png", 1, 1)
            return self.products.put("p", f"t{number}", "d", {}, [image, RED])[0].revision

        with ThreadPoolExecutor(6) as pool:
            revisions = list(pool.map(write, range(24)))
        assert len(set(revisions)) == 24
        assert self.products.get("p").revision == max(revisions)
        assert self.products.counts() == (1, 2)

    def test_a_read_during_writes_sees_a_product_of_one_moment(self) -> None:
        def write(number: int) -> None:
            image = NewImage(f"image {number}".encode(), "image/png", number + 1, 1)
            self.products.put("p", "t", "d", {"number": number}, [image])

        write(0)
        with ThreadPoolExecutor(2) as pool:
            writing = pool.map(write, range(1, 40))
            for _ in range(100):
                for seen in (self.products.get("p"), *self.products.page(1)):
                    assert seen.images[0].width == seen.attributes["number"] + 1
            list(writing)


MODEL, OLD, NEW = "blip2", "0" * 12, "1" * 12


class CaptionsContract:
    """Run on what the fixture `database_url` names."""

    @pytest.fixture(autouse=True)
    def _opened(self, catalog: Catalog, clock: Clock) -> None:
        self.catalog, self.clock, self.captions = catalog, clock, SqlCaptions(catalog.engine, clock)
        self.images = catalog.products.put("shirt", "", "", {}, [RED, BLUE, GREEN])[0].images

    def missing(self, fingerprint: str = OLD) -> set[str]:
        return {image.image_id for image in self.captions.missing(MODEL, fingerprint, 10)}

    def texts(self) -> list[list[str]]:
        found = self.captions.of([image.image_id for image in self.images])
        return [[each.text for each in found.get(image.image_id, [])] for image in self.images]

    def test_an_image_is_missing_until_it_is_captioned_or_failed(self) -> None:
        red, blue, green = self.images
        assert set(self.captions.missing(MODEL, OLD, 10)) == set(self.images)
        assert len(self.captions.missing(MODEL, OLD, 2)) == 2
        self.captions.put(MODEL, OLD, [(red.image_id, "a red shirt")])
        self.captions.fail(MODEL, OLD, [(blue.image_id, InvalidInput("no\0 \ud800 way"))])
        assert self.missing() == {green.image_id}
        assert self.texts() == [["a red shirt"], [], []]
        assert self.captions.counts(MODEL, OLD) == CaptionCounts(images=3, captioned=1, failed=1, missing=1)
        assert self.captions.counts(MODEL, NEW) == CaptionCounts(images=3, captioned=0, failed=0, missing=3)

    def test_a_new_version_replaces_what_the_old_one_wrote_and_not_before(self) -> None:
        self.captions.put(MODEL, OLD, [(image.image_id, "old") for image in self.images])
        assert self.missing(NEW) == {image.image_id for image in self.images}
        red, blue, green = self.images
        self.captions.put(MODEL, NEW, [(red.image_id, "new")])
        self.captions.fail(MODEL, NEW, [(blue.image_id, InvalidInput("no"))])
        assert self.missing(NEW) == {green.image_id}
        assert self.texts() == [["new"], ["old"], ["old"]]

    def test_retry_makes_what_failed_missing_and_keeps_captions(self) -> None:
        red, blue, green = self.images
        self.captions.put(MODEL, OLD, [(red.image_id, "red"), (green.image_id, "green")])
        self.captions.fail(
            MODEL, NEW, [(red.image_id, InvalidInput("no")), (blue.image_id, InvalidInput("no"))]
        )
        assert self.captions.quarantined(MODEL, 10) == (
            2,
            {each.image_id: each.product_id for each in sorted((red, blue), key=lambda each: each.image_id)},
        )
        assert self.captions.quarantined(MODEL, 1)[0] == 2
        assert self.captions.quarantined("another", 10) == (0, {})
        assert self.captions.retry("another") == 0
        assert self.captions.retry(MODEL) == 2
        assert self.missing(OLD) == {red.image_id, blue.image_id}
        assert self.texts() == [["red"], [], ["green"]]

    def test_what_met_a_bug_is_missing_again_for_another_release_alone(self) -> None:
        red, blue, green = self.images
        bug = Internal("a division by zero")
        bug.release = "0.0.1"
        self.captions.put(MODEL, NEW, [(green.image_id, "green")])
        self.captions.fail(MODEL, NEW, [(red.image_id, bug), (blue.image_id, Internal("of this release"))])
        assert self.captions.retry_bugs("another") == 0
        assert self.captions.retry_bugs(MODEL) == 1
        assert self.missing(NEW) == {red.image_id}

    def test_models_keep_their_own_captions_and_the_newest_comes_first(self) -> None:
        red = self.images[0]
        self.captions.put(MODEL, OLD, [(red.image_id, "first")])
        self.clock.move(1)
        self.captions.put("other", OLD, [(red.image_id, "second")])
        found = self.captions.of([red.image_id])[red.image_id]
        assert [(each.model, each.text, each.created_at) for each in found] == [
            ("other", "second", self.clock.now),
            (MODEL, "first", found[1].created_at),
        ]
        assert red.image_id not in self.missing()

    def test_a_put_of_the_product_costs_no_caption(self) -> None:
        self.captions.put(MODEL, OLD, [(image.image_id, "a shirt") for image in self.images])
        self.catalog.products.put("shirt", "title", "", {"price": 3}, [GREEN, RED])
        assert self.missing() == set()
        assert self.texts() == [["a shirt"], [], ["a shirt"]]
        assert self.captions.forget_gone() == 0

    @pytest.mark.parametrize("past_the_catalog", [False, True])
    def test_captions_of_a_deleted_product_go_with_it(self, past_the_catalog: bool) -> None:
        self.captions.put(MODEL, OLD, [(image.image_id, "a shirt") for image in self.images])
        if past_the_catalog:
            with writing(self.catalog.engine) as connection:
                connection.execute(delete(ProductRow))
            assert [self.captions.forget_gone() for _ in range(2)] == [3, 0]
        else:
            self.catalog.products.delete("shirt")
        assert self.captions.of([image.image_id for image in self.images]) == {}

    def test_a_caption_that_comes_when_its_image_is_gone_is_not_kept(self) -> None:
        self.catalog.products.put("shirt", "title", "", {}, [RED])
        red = next(each for each in self.images if each.bytes == len(RED.data))
        self.captions.put(MODEL, OLD, [(image.image_id, "a shirt") for image in self.images])
        assert list(self.captions.of([image.image_id for image in self.images])) == [red.image_id]
        self.catalog.products.delete("shirt")
        self.captions.put(MODEL, OLD, [(red.image_id, "a shirt")])
        self.captions.fail(MODEL, OLD, [(red.image_id, InvalidInput("no"))])
        assert self.captions.forget_gone() == 0

    def test_a_product_shows_the_newest_caption_of_each_image(self) -> None:
        red, blue, green = self.images
        self.captions.put(MODEL, OLD, [(red.image_id, "old"), (blue.image_id, "a blue shirt")])
        self.clock.move(1)
        self.captions.put("other", OLD, [(red.image_id, "new")])
        self.captions.fail("other", OLD, [(green.image_id, InvalidInput("no"))])
        assert [each.caption for each in self.catalog.products.get("shirt").images] == [
            "new",
            "a blue shirt",
            None,
        ]
        changed, _ = self.catalog.products.put("shirt", "", "", {"price": 3}, [GREEN, BLUE])
        assert [each.caption for each in changed.images] == [None, "a blue shirt"]
