"""Captioning against a real catalog: what is missing is written, nothing twice, nothing lost."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete

from catalog.database import CatalogConfig, writing
from catalog.opening import Catalog
from catalog.tables import ProductRow
from core.errors import Internal, InvalidImage, ModelUnavailable, UnsupportedModality
from core.indexing import Captioner, CaptionReport
from core.types import Captioned
from models.config import CaptionConfig
from tests.support.children import Child
from tests.support.image_files import image
from tests.support.local_encoder import LocalEncoder


class Describer(LocalEncoder):
    """Counts the images that it is asked for, and fails on demand."""

    def __init__(self) -> None:
        super().__init__("fake", captions=CaptionConfig())
        self.asked: list[int] = []
        self.fail_after: int | None = None
        self.errors: dict[int, Exception] = {}
        self.fails_on: Sequence[bytes] | None = ()
        self.bug: Exception = Internal("a reply that cannot be sent")

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        if self.fail_after is not None and len(self.asked) >= self.fail_after:
            raise ModelUnavailable("gone")
        if self.fails_on is None or any(each in self.fails_on for each in images):
            raise self.bug
        self.asked.append(len(images))
        captioned = await super().caption(images)
        texts = [self.errors.get(index, text) for index, text in enumerate(captioned.texts)]
        return replace(captioned, texts=texts)


@pytest.fixture
def encoder() -> Describer:
    return Describer()


@pytest.fixture
def captioning(catalog: Catalog, encoder: Describer) -> Captioner:
    return Captioner(encoder, catalog.captions, catalog.blobs)


def texts(catalog: Catalog) -> set[str]:
    ids = [each.image_id for product in catalog.products.page(100) for each in product.images]
    return {caption.text for captions in catalog.captions.of(ids).values() for caption in captions}


def put(catalog: Catalog, *colors: str) -> None:
    for color in colors:
        catalog.products.put(color, "", "", {}, [image(color)])


def test_every_image_is_captioned_once(catalog: Catalog, encoder: Describer, captioning: Captioner) -> None:
    put(catalog, "red", "lime", "blue")
    assert asyncio.run(captioning.repair(batch_size=2)) == CaptionReport(written=3)
    assert texts(catalog) == {"a red thing", "a lime thing", "a blue thing"}
    put(catalog, "white")
    assert asyncio.run(captioning.repair(batch_size=2)) == CaptionReport(written=1)
    assert asyncio.run(captioning.repair()) == CaptionReport()
    assert encoder.asked == [2, 1, 1]


def test_a_pass_that_breaks_off_keeps_what_it_has_written(
    catalog: Catalog, encoder: Describer, captioning: Captioner
) -> None:
    put(catalog, "red", "lime", "blue")
    encoder.fail_after = 1
    with pytest.raises(ModelUnavailable):
        asyncio.run(captioning.repair(batch_size=2))
    assert len(texts(catalog)) == 2
    encoder.fail_after = None
    assert asyncio.run(captioning.repair(batch_size=2)) == CaptionReport(written=1)
    assert encoder.asked == [2, 1]


def test_an_image_that_meets_a_bug_is_out_of_the_way_until_another_release(
    catalog: Catalog, encoder: Describer
) -> None:
    put(catalog, "red", "lime")
    bug = Internal("a division by zero")
    bug.release = "0.0.1"
    encoder.errors = {0: bug}
    captioning = Captioner(encoder, catalog.captions, catalog.blobs)
    assert asyncio.run(captioning.repair()) == CaptionReport(written=1, failed=1)
    assert asyncio.run(captioning.repair()) == CaptionReport()
    encoder.errors = {}
    upgraded = Captioner(encoder, catalog.captions, catalog.blobs)
    assert asyncio.run(upgraded.repair()) == CaptionReport(written=1)


@pytest.mark.parametrize(
    "bug", [Internal("a reply that cannot be sent"), RuntimeError("of the model's code")]
)
def test_an_image_on_which_a_whole_call_fails_keeps_no_other_from_its_caption(
    bug: Exception, catalog: Catalog, encoder: Describer, captioning: Captioner
) -> None:
    put(catalog, "red", "lime", "blue", "white", "black")
    encoder.bug, encoder.fails_on = bug, [image("lime").data, image("black").data]
    assert asyncio.run(captioning.repair(batch_size=4)) == CaptionReport(written=3, failed=2)
    encoder.fails_on = ()
    assert catalog.captions.retry("fake") == 2
    assert asyncio.run(captioning.repair()) == CaptionReport(written=2)


def test_no_image_is_to_blame_when_every_call_fails(
    catalog: Catalog, encoder: Describer, captioning: Captioner
) -> None:
    put(catalog, "red")
    encoder.fails_on = None
    with pytest.raises(Internal, match="a reply"):
        asyncio.run(captioning.repair())
    encoder.fails_on = ()
    assert asyncio.run(captioning.repair()) == CaptionReport(written=1)


def test_a_bad_image_goes_to_quarantine_until_it_is_asked_for_again(
    catalog: Catalog, encoder: Describer, captioning: Captioner
) -> None:
    put(catalog, "red", "lime")
    encoder.errors = {0: InvalidImage("no")}
    assert asyncio.run(captioning.repair()) == CaptionReport(written=1, failed=1)
    encoder.errors = {}
    assert asyncio.run(captioning.repair()) == CaptionReport()
    assert catalog.captions.retry("fake") == 1
    assert asyncio.run(captioning.repair()) == CaptionReport(written=1)


def test_an_image_that_fails_for_now_stays_missing_and_ends_the_pass(
    catalog: Catalog, encoder: Describer, captioning: Captioner
) -> None:
    put(catalog, "red")
    encoder.errors = {0: ModelUnavailable("busy")}
    assert asyncio.run(captioning.repair()) == CaptionReport()
    encoder.errors = {}
    assert asyncio.run(captioning.repair()) == CaptionReport(written=1)


def test_a_missing_file_spares_its_neighbors(catalog: Catalog, captioning: Captioner, tmp_path: Path) -> None:
    put(catalog, "red", "blue")
    sha256 = catalog.products.get("red").images[0].sha256
    (blob,) = (tmp_path / "blobs").rglob(sha256)
    blob.unlink()
    assert asyncio.run(captioning.repair()) == CaptionReport(written=1, failed=1)


def test_calls_carry_no_more_than_they_can(
    catalog: Catalog, encoder: Describer, captioning: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(catalog, "red", "lime", "blue")
    largest = max(len(image(color).data) for color in ("red", "lime", "blue"))
    monkeypatch.setattr("core.batching.MAX_ENCODE_BYTES", largest * 2)
    assert asyncio.run(captioning.repair()) == CaptionReport(written=3)
    assert encoder.asked == [2, 1]


def test_another_version_captions_anew_and_a_half_rolled_one_waits(
    catalog: Catalog, encoder: Describer, captioning: Captioner
) -> None:
    put(catalog, "red")
    asyncio.run(captioning.repair())
    info = asyncio.run(encoder.describe())

    async def describe_new() -> object:
        return replace(info, captions="f" * 12)

    encoder.describe = describe_new  # type: ignore[method-assign,assignment]
    caption = encoder.caption

    async def caption_old(images: Sequence[bytes]) -> Captioned:
        return replace(await caption(images), info=info)

    encoder.caption = caption_old  # type: ignore[method-assign]
    assert asyncio.run(captioning.repair()) == CaptionReport()
    encoder.caption = caption  # type: ignore[method-assign]
    assert asyncio.run(captioning.repair()) == CaptionReport(written=1)
    assert texts(catalog) == {"a red thing"}


def test_captions_of_gone_images_go(catalog: Catalog, captioning: Captioner) -> None:
    put(catalog, "red", "lime")
    asyncio.run(captioning.repair())
    # As by a version that left captions behind.
    with writing(catalog.engine) as connection:
        connection.execute(delete(ProductRow).where(ProductRow.id == "red"))
    assert asyncio.run(captioning.repair()) == CaptionReport(removed=1)


def test_an_encoder_without_captions_says_so(catalog: Catalog) -> None:
    put(catalog, "red")
    with pytest.raises(UnsupportedModality, match="'plain' writes no captions"):
        asyncio.run(Captioner(LocalEncoder("plain"), catalog.captions, catalog.blobs).repair())


def test_a_pass_that_is_killed_goes_on_where_it_was(
    catalog: Catalog, catalog_config: CatalogConfig, encoder: Describer, captioning: Captioner
) -> None:
    put(catalog, *(f"#{level:02x}0000" for level in range(0, 250, 5)))
    arguments = [catalog_config.database_url, catalog_config.blobs_url]
    with Child(
        "captions",
        [sys.executable, "-m", "tests.support.caption_writer", *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        for _ in range(8):
            assert process.stdout.readline() == "asked\n"
        process.kill()
    ids = [each.image_id for product in catalog.products.page(100) for each in product.images]
    before = catalog.captions.of(ids)
    assert 7 <= len(before) < 50
    assert asyncio.run(captioning.repair()) == CaptionReport(written=50 - len(before))
    after = catalog.captions.of(ids)
    assert len(after) == 50
    assert before.items() <= after.items()
