"""What every database of the catalog must do with captions."""

import pytest
from sqlalchemy import delete

from catalog.captions import SqlCaptions
from catalog.opening import Catalog
from catalog.tables import ProductRow
from catalog.transactions import writing
from core.errors import Internal, InvalidInput
from core.types import CaptionCounts, Picture
from tests.contracts.catalog_things import BLUE, GREEN, RED, Clock

MODEL, OLD, NEW = "blip2", "0" * 12, "1" * 12


class CaptionsContract:
    """Run by a class that defines the fixture `database_url`."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def captions(self, catalog: Catalog, clock: Clock) -> SqlCaptions:
        return SqlCaptions(catalog.engine, clock)

    @pytest.fixture
    def pictures(self, catalog: Catalog) -> tuple[Picture, ...]:
        product, _ = catalog.products.put("shirt", "", "", {}, [RED, BLUE, GREEN])
        return product.pictures

    def missing(self, captions: SqlCaptions, fingerprint: str = OLD) -> set[str]:
        return {picture.image_id for picture in captions.missing(MODEL, fingerprint, 10)}

    def texts(self, captions: SqlCaptions, pictures: tuple[Picture, ...]) -> list[list[str]]:
        found = captions.of([picture.image_id for picture in pictures])
        return [[each.text for each in found.get(picture.image_id, [])] for picture in pictures]

    def test_a_picture_is_missing_until_it_is_captioned_or_failed(
        self, captions: SqlCaptions, pictures: tuple[Picture, ...]
    ) -> None:
        red, blue, green = pictures
        assert set(captions.missing(MODEL, OLD, 10)) == set(pictures)
        assert len(captions.missing(MODEL, OLD, 2)) == 2
        captions.put(MODEL, OLD, [(red.image_id, "a red shirt")])
        captions.fail(MODEL, OLD, [(blue.image_id, InvalidInput("no\0 \ud800 way"))])
        assert self.missing(captions) == {green.image_id}
        assert self.texts(captions, pictures) == [["a red shirt"], [], []]
        assert captions.counts(MODEL, OLD) == CaptionCounts(pictures=3, captioned=1, failed=1, missing=1)
        assert captions.counts(MODEL, NEW) == CaptionCounts(pictures=3, captioned=0, failed=0, missing=3)

    def test_a_new_version_replaces_what_the_old_one_wrote_and_not_before(
        self, captions: SqlCaptions, pictures: tuple[Picture, ...]
    ) -> None:
        captions.put(MODEL, OLD, [(picture.image_id, "old") for picture in pictures])
        assert self.missing(captions, NEW) == {picture.image_id for picture in pictures}
        red, blue, green = pictures
        captions.put(MODEL, NEW, [(red.image_id, "new")])
        captions.fail(MODEL, NEW, [(blue.image_id, InvalidInput("no"))])
        assert self.missing(captions, NEW) == {green.image_id}
        assert self.texts(captions, pictures) == [["new"], ["old"], ["old"]]

    def test_retry_makes_what_failed_missing_and_keeps_captions(
        self, captions: SqlCaptions, pictures: tuple[Picture, ...]
    ) -> None:
        red, blue, green = pictures
        captions.put(MODEL, OLD, [(red.image_id, "red"), (green.image_id, "green")])
        captions.fail(MODEL, NEW, [(red.image_id, InvalidInput("no")), (blue.image_id, InvalidInput("no"))])
        assert captions.quarantined(MODEL, 10) == (
            2,
            {each.image_id: each.product_id for each in sorted((red, blue), key=lambda each: each.image_id)},
        )
        assert captions.quarantined(MODEL, 1)[0] == 2
        assert captions.quarantined("another", 10) == (0, {})
        assert captions.retry("another") == 0
        assert captions.retry(MODEL) == 2
        assert self.missing(captions, OLD) == {red.image_id, blue.image_id}
        assert self.texts(captions, pictures) == [["red"], [], ["green"]]

    def test_what_met_a_bug_is_missing_again_for_another_release_alone(
        self, captions: SqlCaptions, pictures: tuple[Picture, ...]
    ) -> None:
        red, blue, green = pictures
        bug = Internal("a division by zero")
        bug.release = "0.0.1"
        captions.put(MODEL, NEW, [(green.image_id, "green")])
        captions.fail(MODEL, NEW, [(red.image_id, bug), (blue.image_id, Internal("of this release"))])
        assert captions.retry_bugs("another") == 0
        assert captions.retry_bugs(MODEL) == 1
        assert self.missing(captions, NEW) == {red.image_id}

    def test_models_keep_their_own_captions_and_the_newest_comes_first(
        self, captions: SqlCaptions, pictures: tuple[Picture, ...], clock: Clock
    ) -> None:
        red = pictures[0]
        captions.put(MODEL, OLD, [(red.image_id, "first")])
        clock.move(1)
        captions.put("other", OLD, [(red.image_id, "second")])
        found = captions.of([red.image_id])[red.image_id]
        assert [(each.model, each.text, each.created_at) for each in found] == [
            ("other", "second", clock.now),
            (MODEL, "first", found[1].created_at),
        ]
        assert red.image_id not in self.missing(captions)

    def test_a_put_of_the_product_costs_no_caption(
        self, catalog: Catalog, captions: SqlCaptions, pictures: tuple[Picture, ...]
    ) -> None:
        captions.put(MODEL, OLD, [(picture.image_id, "a shirt") for picture in pictures])
        catalog.products.put("shirt", "title", "", {"price": 3}, [GREEN, RED])
        assert self.missing(captions) == set()
        assert self.texts(captions, pictures) == [["a shirt"], [], ["a shirt"]]
        assert captions.forget_gone() == 0

    def test_captions_of_a_deleted_product_go_with_it(
        self, catalog: Catalog, captions: SqlCaptions, pictures: tuple[Picture, ...]
    ) -> None:
        captions.put(MODEL, OLD, [(picture.image_id, "a shirt") for picture in pictures])
        catalog.products.delete("shirt")
        assert captions.of([picture.image_id for picture in pictures]) == {}

    def test_a_caption_that_comes_when_its_image_is_gone_is_not_kept(
        self, catalog: Catalog, captions: SqlCaptions, pictures: tuple[Picture, ...]
    ) -> None:
        catalog.products.put("shirt", "title", "", {}, [RED])
        red = next(each for each in pictures if each.bytes == len(RED.data))
        captions.put(MODEL, OLD, [(picture.image_id, "a shirt") for picture in pictures])
        assert list(captions.of([picture.image_id for picture in pictures])) == [red.image_id]
        catalog.products.delete("shirt")
        captions.put(MODEL, OLD, [(red.image_id, "a shirt")])
        captions.fail(MODEL, OLD, [(red.image_id, InvalidInput("no"))])
        assert captions.forget_gone() == 0

    def test_captions_that_earlier_versions_have_left_go(
        self, catalog: Catalog, captions: SqlCaptions, pictures: tuple[Picture, ...]
    ) -> None:
        captions.put(MODEL, OLD, [(picture.image_id, "a shirt") for picture in pictures])
        with writing(catalog.engine) as connection:
            connection.execute(delete(ProductRow))
        assert captions.forget_gone() == 3
        assert captions.forget_gone() == 0

    def test_a_product_shows_the_newest_caption_of_each_picture(
        self, catalog: Catalog, captions: SqlCaptions, pictures: tuple[Picture, ...], clock: Clock
    ) -> None:
        red, blue, green = pictures
        captions.put(MODEL, OLD, [(red.image_id, "old"), (blue.image_id, "a blue shirt")])
        clock.move(1)
        captions.put("other", OLD, [(red.image_id, "new")])
        captions.fail("other", OLD, [(green.image_id, InvalidInput("no"))])
        assert [each.caption for each in catalog.products.get("shirt").pictures] == [
            "new",
            "a blue shirt",
            None,
        ]
        changed, _ = catalog.products.put("shirt", "", "", {"price": 3}, [GREEN, BLUE])
        assert [each.caption for each in changed.pictures] == [None, "a blue shirt"]
