"""Verification over a real catalog: each difference is made, found and repaired."""

import asyncio
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete

from catalog.imports import KnownImage
from catalog.tables import EmbeddingRow
from core.errors import InvalidImage
from core.types import EncoderInfo, IndexItem, VectorRow
from jobs.runner.context import JobContext
from jobs.runner.settings import EncoderSettings
from jobs.verification import verify as module
from jobs.verification.checks import check_files
from jobs.verification.differences import Differences, Findings, Sample
from jobs.verification.vectors import Compare, Compared, KeyedFile, compare_vectors, least_cosine
from jobs.verification.verify import Verification
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from tests.support.catalog_fixtures import a_minute_ago
from tests.support.local_encoder import LocalEncoder
from tests.support.upgrade_stage import MODEL, Stage, image, info, job_settings, stage
from tests.support.vector_stores import LiteProcess, wait_for

LIVE = info("old").collection


@dataclass
class Checked:
    shop: Stage
    verification: Verification
    folder: Path

    def look(self, percent: float = 100, repair: bool = False) -> Findings:
        self.verification.sample = Sample(percent, seed=1)
        return self.verification.look(None, repair)

    def kinds(self, percent: float = 100) -> dict[str, int]:
        return {each["kind"]: each["count"] for each in self.look(percent).report()}

    def repair(self) -> None:
        findings = self.look(repair=True)
        self.verification.rebuild(
            findings, lambda _found, encoder: self.shop.build(encoder.config.checkpoint)
        )

    def assert_repaired(self) -> None:
        self.repair()
        assert self.kinds() == {}
        assert self.shop.keys("old") == self.shop.expected_keys()

    def first(self) -> VectorRow:
        (item,) = self.shop.catalog.ledger.items("p0")
        return VectorRow(item, self.shop.store.fetch(LIVE, [item.key])[item.key])


@pytest.fixture
def checked(tmp_path: Path) -> Iterator[Checked]:
    with stage(tmp_path) as shop:
        encoder = EncoderSettings(
            EncoderConfig(name=MODEL, family="fake", checkpoint="old"),
            num_cpus=1,
            num_gpus=0,
            stated={"name": MODEL, "family": "fake", "checkpoint": "old"},
        )

        @contextmanager
        def opened(settings: EncoderSettings, version: EncoderInfo) -> Iterator[Compare | None]:
            client = LocalEncoder(checkpoint=settings.config.checkpoint)

            def compare(files: Sequence[KeyedFile]) -> Compared:
                least = least_cosine(settings.config)
                return asyncio.run(compare_vectors(client, version, shop.catalog, shop.store, files, least))

            yield compare if asyncio.run(client.describe()).collection == version.collection else None

        with shop.job("verify") as run:
            context = JobContext(run, job_settings(encoder), shop.catalog)
            configured = {LIVE: (info("old"), encoder)}
            verification = Verification(context, shop.store, configured, opened, Sample(100, seed=1))
            yield Checked(shop, verification, tmp_path)


def test_a_sound_service_agrees_and_says_what_was_looked_at(checked: Checked) -> None:
    assert checked.kinds() == {}
    assert checked.verification.checked == {
        "images": 6,
        "unnamed_files": 0,
        "versions": {LIVE: {"vectors": 6, "encoded_anew": 6}},
    }
    assert checked.kinds(percent=0) == {}
    assert checked.verification.checked["versions"][LIVE]["encoded_anew"] == 0


def test_an_image_that_goes_while_it_is_looked_at_is_no_difference(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = checked.shop.catalog

    def deleted_meanwhile(*args: Any) -> Differences:
        catalog.products.delete("p0")
        assert catalog.image_files.collect(0, 10).removed == 1
        monkeypatch.setattr(module, "check_files", check_files)
        return check_files(*args)

    monkeypatch.setattr(module, "check_files", deleted_meanwhile)
    assert "missing_file" not in checked.kinds()


def test_files_that_wait_for_their_removal_are_counted(checked: Checked) -> None:
    checked.shop.catalog.products.delete("p0")
    checked.kinds()
    assert checked.verification.checked["unnamed_files"] == 1


def test_a_lost_collection_is_built_again(checked: Checked) -> None:
    checked.shop.store.drop_collection(LIVE)
    assert checked.kinds() == {"missing_collection": 6}
    checked.assert_repaired()
    assert checked.shop.live == LIVE


def test_a_deleted_folder_of_milvus_lite_is_found_and_built_again(
    checked: Checked, lite_process: LiteProcess
) -> None:
    shop = checked.shop
    lite_process.start()
    store = MilvusStore(MilvusConfig(uri=lite_process.uri))
    wait_for(store, 60)
    shop.store = checked.verification.store = store  # type: ignore[assignment]
    shop.build("old")
    assert checked.kinds() == {}
    lite_process.kill()
    shutil.rmtree(lite_process.data)
    lite_process.start()
    wait_for(store, 60)
    assert checked.kinds() == {"missing_collection": 6}
    checked.assert_repaired()
    assert shop.live == LIVE
    store.close()


def test_a_lost_vector_is_encoded_again(checked: Checked) -> None:
    row = checked.first()
    checked.shop.store.delete(LIVE, [row.item.key])
    assert checked.kinds() == {"lost_vector": 1}
    checked.assert_repaired()


@pytest.mark.parametrize("damage", ["turned", "longer", "not a number"])
def test_a_changed_vector_is_found_and_encoded_again(checked: Checked, damage: str) -> None:
    row = checked.first()
    vector = row.vector.copy()
    if damage == "turned":
        vector = np.roll(vector, 1)
    elif damage == "longer":
        vector *= 2
    else:
        vector[0] = np.nan
    stored = checked.shop.store._collections[LIVE].rows
    stored[row.item.key] = VectorRow(row.item, vector)
    (reported,) = checked.look().report()
    assert (reported["kind"], reported["count"], reported["repairable"]) == ("changed_vector", 1, True)
    assert reported["examples"] == [{"key": row.item.key, "product_id": "p0"}]
    checked.assert_repaired()
    assert np.allclose(checked.shop.store.fetch(LIVE, [row.item.key])[row.item.key], row.vector)


@pytest.mark.parametrize(
    ("settings", "changed"), [({}, 1), ({"decode_on_gpu": True}, 0), ({"precision": "bf16"}, 0)]
)
def test_a_vector_may_differ_by_what_its_precision_and_decoder_change(
    checked: Checked, settings: dict[str, Any], changed: int
) -> None:
    row = checked.first()
    turned = row.vector + 0.04 * np.roll(row.vector, 1)
    turned /= np.linalg.norm(turned)
    assert 0.99 < float(turned @ row.vector) < 0.9999
    checked.shop.store._collections[LIVE].rows[row.item.key] = VectorRow(row.item, turned)
    version, encoder = checked.verification.configured[LIVE]
    config = encoder.config.model_copy(update=settings)
    checked.verification.configured = {LIVE: (version, replace(encoder, config=config))}
    assert checked.kinds() == ({"changed_vector": 1} if changed else {})


def test_rows_that_the_ledger_knows_nothing_of_go(checked: Checked) -> None:
    row = checked.first()
    strange = [
        VectorRow(_with(row.item, image_id="f" * 32), row.vector),
        VectorRow(_with(row.item, revision=7), row.vector),
    ]
    checked.shop.store.upsert(LIVE, strange)
    assert checked.kinds() == {"orphan_vector": 2}
    checked.assert_repaired()


def test_a_vector_whose_ledger_row_was_lost_is_not_lost_for_good(checked: Checked) -> None:
    row = checked.first()
    with checked.shop.catalog.engine.begin() as connection:
        connection.execute(delete(EmbeddingRow).where(EmbeddingRow.image_id == row.item.image_id))
    assert checked.kinds() == {"orphan_vector": 1, "missing_image": 1}
    checked.assert_repaired()


def test_images_that_are_missing_or_gone_are_followed(checked: Checked) -> None:
    products = a_minute_ago(checked.shop.catalog)
    products.put("new", "", "", {}, [image("new")])
    products.delete("p1")
    assert checked.kinds() == {"missing_image": 1, "obsolete_row": 1}
    checked.assert_repaired()


def test_an_image_in_quarantine_is_tried_once_more(checked: Checked) -> None:
    item = checked.first().item
    checked.shop.store.delete(LIVE, [item.key])
    checked.shop.catalog.ledger.open(LIVE, [item])
    checked.shop.catalog.ledger.fail(LIVE, [(item, InvalidImage("the memory was full"))])
    assert checked.kinds() == {"quarantined_image": 1}
    checked.assert_repaired()


def test_a_missing_or_damaged_file_is_reported_with_its_product_and_stays(checked: Checked) -> None:
    images = {name: checked.shop.catalog.products.get(name).images[0] for name in ("p2", "p3", "p4")}
    files = {name: next((checked.folder / "blobs").rglob(each.sha256)) for name, each in images.items()}
    files["p2"].unlink()
    files["p3"].write_bytes(b"short")
    flipped = bytearray(files["p4"].read_bytes())
    flipped[-1] ^= 1
    files["p4"].write_bytes(flipped)
    found = {each["kind"]: each for each in checked.look().report()}
    assert set(found) == {"missing_file", "damaged_file"}
    assert not found["missing_file"]["repairable"]
    assert [each["product_id"] for each in found["missing_file"]["examples"]] == ["p2"]
    assert {each["product_id"] for each in found["damaged_file"]["examples"]} == {"p3", "p4"}
    memory = checked.shop.catalog.imported_images
    memory.remember(
        {name: KnownImage(None, None, each.sha256, "image/png", 8, 8) for name, each in images.items()}
    )
    memory.remember({"sound": KnownImage(None, None, "a" * 64, "image/png", 8, 8)})
    checked.repair()
    assert set(checked.kinds()) == {"missing_file", "damaged_file"}
    assert list(memory.find([*images, "sound"])) == ["sound"], "the others are imported anew"


def test_an_earlier_version_is_checked_by_the_settings_that_made_it(checked: Checked) -> None:
    shop, earlier = checked.shop, info("before").collection
    shop.build("before")
    assert checked.kinds() == {"unchecked_version": 1}
    shop.catalog.versions.keep_settings(earlier, {"family": "fake", "checkpoint": "before"})
    assert checked.kinds() == {}
    shop.store.drop_collection(earlier)
    assert checked.kinds() == {"missing_collection": 6}
    checked.repair()
    assert checked.kinds() == {}
    assert earlier not in {known.name for known in shop.store.collections()}


def test_the_same_is_found_however_the_catalog_is_cut(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, row = checked.shop, checked.first()
    shop.put(*(f"p{number}" for number in range(6, 40)))
    shop.build("old")
    keys = sorted(shop.expected_keys())
    turned, lost, gone = keys[3], keys[17], keys[30]
    shop.store.delete(LIVE, [lost])
    stored = shop.store._collections[LIVE].rows
    stored[turned] = VectorRow(stored[turned].item, np.roll(stored[turned].vector, 1))
    stored["zz"] = VectorRow(_with(row.item, image_id="zz"), row.vector)
    a_minute_ago(shop.catalog).delete(shop.catalog.products.image(gone.partition(":")[0]).product_id)
    whole = checked.look().report()
    monkeypatch.setattr("jobs.verification.verify._IMAGES_A_RANGE", 3)
    assert checked.look().report() == whole
    assert {each["kind"]: [row["key"] for row in each["examples"]] for each in whole} == {
        "changed_vector": [turned],
        "lost_vector": [lost],
        "obsolete_row": [gone],
        "orphan_vector": ["zz"],
    }
    checked.assert_repaired()


def test_what_differs_everywhere_is_counted_shown_by_examples_and_named_in_the_log(
    checked: Checked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    checked.shop.put(*(f"p{number}" for number in range(6, 30)))
    checked.shop.build("old")
    checked.shop.store.delete(LIVE, sorted(checked.shop.expected_keys()))
    (reported,) = checked.look().report()
    assert (reported["kind"], reported["count"], len(reported["examples"])) == ("lost_vector", 30, 10)
    for number in range(30):
        assert f"of product p{number} in {LIVE}" in caplog.text
    checked.assert_repaired()


def test_captions_in_quarantine_are_reported_and_tried_once_more(checked: Checked) -> None:
    captions = checked.shop.catalog.captions
    (first, second) = (checked.shop.catalog.products.get(name).images[0] for name in ("p0", "p1"))
    captions.put(MODEL, "c" * 12, [(first.image_id, "a red shirt")])
    captions.fail(MODEL, "c" * 12, [(second.image_id, InvalidImage("the memory was full"))])
    (reported,) = checked.look().report()
    assert (reported["kind"], reported["count"]) == ("quarantined_caption", 1)
    assert reported["examples"] == [{"key": second.image_id, "product_id": "p1"}]
    checked.assert_repaired()
    assert [each.image_id for each in captions.missing(MODEL, "c" * 12, 100) if each == second] != []
    assert captions.of([first.image_id])[first.image_id][0].text == "a red shirt"


def test_a_seed_draws_the_same_share_again_and_another_seed_another() -> None:
    keys = [f"{number:032x}:1" for number in range(4000)]
    drawn = [key for key in keys if key in Sample(5, seed=1)]
    assert drawn == [key for key in keys if key in Sample(5, seed=1)]
    assert drawn != [key for key in keys if key in Sample(5, seed=2)]
    assert 120 < len(drawn) < 280
    assert [key for key in keys if key in Sample(0, seed=1)] == []
    assert [key for key in keys if key in Sample(100, seed=1)] == keys


def _with(item: IndexItem, **changes: Any) -> IndexItem:
    return replace(item, **changes)
