"""Captioning against a real catalog: what is missing is written, nothing twice, nothing lost."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete

from catalog.database import CatalogConfig, writing
from catalog.opening import Catalog
from catalog.tables import ProductRow
from core.errors import Internal, InvalidImage, ModelUnavailable, UnsupportedModality, VitrineError
from core.indexing import Captioner, CaptionReport
from core.types import Caption, Captioned
from models.config import CaptionConfig
from tests.support.children import Child
from tests.support.image_files import image
from tests.support.local_encoder import LocalEncoder


class Describer(LocalEncoder):
    """Counts the images of each call, and fails on demand: on single images, or with a whole call."""

    def __init__(self) -> None:
        super().__init__("fake", captions=CaptionConfig())
        self.asked: list[int] = []
        self.fail_after = 1000
        self.errors: dict[int, VitrineError] = {}
        self.fails_on: Sequence[bytes] | None = ()
        self.bug: Exception = Internal("a reply that cannot be sent")
        self.after: Callable[[Captioned], Captioned] = lambda captioned: captioned

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        if len(self.asked) >= self.fail_after:
            raise ModelUnavailable("gone")
        if self.fails_on is None or any(each in self.fails_on for each in images):
            raise self.bug
        self.asked.append(len(images))
        captioned = await super().caption(images)
        texts = [self.errors.get(index, text) for index, text in enumerate(captioned.texts)]
        return self.after(replace(captioned, texts=texts))


class Shop:
    """A catalog, an encoder, and its captioning."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.encoder = catalog, Describer()
        self.captioner = self.another_captioner()

    def another_captioner(self) -> Captioner:
        return Captioner(self.encoder, self.catalog.captions, self.catalog.blobs)

    def put(self, *colors: str) -> None:
        for color in colors:
            self.catalog.products.put(color, "", "", {}, [image(color)])

    def repair(self, batch_size: int = 8) -> CaptionReport:
        return asyncio.run(self.captioner.repair(batch_size))

    def captions(self) -> dict[str, list[Caption]]:
        products = self.catalog.products.page(100)
        return self.catalog.captions.of([each.image_id for product in products for each in product.images])

    def texts(self) -> set[str]:
        return {caption.text for captions in self.captions().values() for caption in captions}


@pytest.fixture
def shop(catalog: Catalog) -> Shop:
    return Shop(catalog)


def test_every_image_is_captioned_once(shop: Shop) -> None:
    shop.put("red", "lime", "blue")
    assert shop.repair(batch_size=2) == CaptionReport(written=3)
    assert shop.texts() == {"a red thing", "a lime thing", "a blue thing"}
    shop.put("white")
    assert shop.repair(batch_size=2) == CaptionReport(written=1)
    assert shop.repair() == CaptionReport()
    assert shop.encoder.asked == [2, 1, 1]


def test_a_pass_that_breaks_off_keeps_what_it_has_written(shop: Shop) -> None:
    shop.put("red", "lime", "blue")
    shop.encoder.fail_after = 1
    with pytest.raises(ModelUnavailable):
        shop.repair(batch_size=2)
    assert len(shop.texts()) == 2
    shop.encoder.fail_after = 1000
    assert shop.repair(batch_size=2) == CaptionReport(written=1)
    assert shop.encoder.asked == [2, 1]


def test_an_image_that_meets_a_bug_is_out_of_the_way_until_another_release(shop: Shop) -> None:
    shop.put("red", "lime")
    bug = shop.encoder.errors[0] = Internal("a division by zero")
    bug.release = "0.0.1"
    assert shop.repair() == CaptionReport(written=1, failed=1)
    assert shop.repair() == CaptionReport()
    shop.encoder.errors = {}
    shop.captioner = shop.another_captioner()
    assert shop.repair() == CaptionReport(written=1)


@pytest.mark.parametrize(
    "bug", [Internal("a reply that cannot be sent"), RuntimeError("of the model's code")]
)
def test_an_image_on_which_a_whole_call_fails_keeps_no_other_from_its_caption(
    bug: Exception, shop: Shop
) -> None:
    shop.put("red", "lime", "blue", "white", "black")
    shop.encoder.bug, shop.encoder.fails_on = bug, [image("lime").data, image("black").data]
    assert shop.repair(batch_size=4) == CaptionReport(written=3, failed=2)
    shop.encoder.fails_on = ()
    assert shop.catalog.captions.retry("fake") == 2
    assert shop.repair() == CaptionReport(written=2)


def test_a_model_that_finds_nothing_in_a_sound_image_is_not_taken_for_broken(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.indexing.PROBE", b"nothing to see")
    shop.put("red", "lime")
    shop.encoder.fails_on = [image("lime").data]
    assert shop.repair() == CaptionReport(written=1, failed=1)


def test_no_image_is_to_blame_when_every_call_fails(shop: Shop) -> None:
    shop.put("red")
    shop.encoder.fails_on = None
    with pytest.raises(Internal, match="a reply"):
        shop.repair()
    shop.encoder.fails_on = ()
    assert shop.repair() == CaptionReport(written=1)


def test_a_bad_image_goes_to_quarantine_until_it_is_asked_for_again(shop: Shop) -> None:
    shop.put("red", "lime")
    shop.encoder.errors = {0: InvalidImage("no")}
    assert shop.repair() == CaptionReport(written=1, failed=1)
    shop.encoder.errors = {}
    assert shop.repair() == CaptionReport()
    assert shop.catalog.captions.retry("fake") == 1
    assert shop.repair() == CaptionReport(written=1)


def test_an_image_that_fails_for_now_stays_missing_and_ends_the_pass(shop: Shop) -> None:
    shop.put("red")
    shop.encoder.errors = {0: ModelUnavailable("busy")}
    assert shop.repair() == CaptionReport()
    shop.encoder.errors = {}
    assert shop.repair() == CaptionReport(written=1)


def test_a_missing_file_spares_its_neighbors(shop: Shop, tmp_path: Path) -> None:
    shop.put("red", "blue")
    (blob,) = (tmp_path / "blobs").rglob(shop.catalog.products.get("red").images[0].sha256)
    blob.unlink()
    assert shop.repair() == CaptionReport(written=1, failed=1)


def test_calls_carry_no_more_than_they_can(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.put("red", "lime", "blue")
    largest = max(len(image(color).data) for color in ("red", "lime", "blue"))
    monkeypatch.setattr("core.concurrency.MAX_ENCODE_BYTES", largest * 2)
    assert shop.repair() == CaptionReport(written=3)
    assert shop.encoder.asked == [2, 1]


def test_another_version_captions_anew_and_a_half_rolled_one_waits(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("red")
    shop.repair()
    info = asyncio.run(shop.encoder.describe())

    async def describe_new() -> object:
        return replace(info, captions="f" * 12)

    monkeypatch.setattr(shop.encoder, "describe", describe_new)
    shop.encoder.after = lambda captioned: replace(captioned, info=info)
    assert shop.repair() == CaptionReport()
    shop.encoder.after = lambda captioned: captioned
    assert shop.repair() == CaptionReport(written=1)
    assert shop.texts() == {"a red thing"}


def test_captions_of_gone_images_go(shop: Shop) -> None:
    shop.put("red", "lime")
    shop.repair()
    # As by a version that left captions behind.
    with writing(shop.catalog.engine) as connection:
        connection.execute(delete(ProductRow).where(ProductRow.id == "red"))
    assert shop.repair() == CaptionReport(removed=1)


def test_an_encoder_without_captions_says_so(shop: Shop) -> None:
    plain = Captioner(LocalEncoder("plain"), shop.catalog.captions, shop.catalog.blobs)
    with pytest.raises(UnsupportedModality, match="'plain' writes no captions"):
        asyncio.run(plain.repair())


def test_a_pass_that_is_killed_goes_on_where_it_was(shop: Shop, catalog_config: CatalogConfig) -> None:
    shop.put(*(f"#{level:02x}0000" for level in range(0, 250, 5)))
    writer = [sys.executable, "-m", "tests.support.caption_writer"]
    arguments = [catalog_config.database_url, catalog_config.blobs_url]
    folder = Path(__file__).parents[3]
    with Child("captions", [*writer, *arguments], stdout=subprocess.PIPE, cwd=folder) as process:
        assert process.stdout is not None
        for _ in range(8):
            assert process.stdout.readline() == "asked\n"
        process.kill()
    before = shop.captions()
    assert 7 <= len(before) < 50
    assert shop.repair() == CaptionReport(written=50 - len(before))
    after = shop.captions()
    assert len(after) == 50
    assert before.items() <= after.items()
