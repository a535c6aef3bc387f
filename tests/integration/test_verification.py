"""What a verification finds and repairs, over a real catalog: each difference is made, found and repaired."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.bulk import BulkConfig
from core.errors import InvalidImage
from core.types import EncoderInfo, IndexItem, VectorRow
from jobs.context import JobContext
from jobs.settings import EncoderSettings, Settings
from jobs.verification.vectors import Compared, compare_vectors
from jobs.verification.verify import Verification
from milvus.config import MilvusConfig
from models.config import EncoderConfig
from tests.local_encoder import LocalEncoder
from tests.upgrade_stage import MODEL, Stage, info, stage

LIVE = info("old").collection


@dataclass
class Checked:
    shop: Stage
    verification: Verification
    folder: Path

    def kinds(self, percent: float = 100) -> dict[str, int]:
        return {each["kind"]: each["count"] for each in self.verification.compare(None, percent).told()}

    def repair(self) -> None:
        self.verification.repair(
            self.verification.compare(None, 100),
            lambda found, encoder: self.shop.build(encoder.config.checkpoint),
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
        settings = Settings(
            catalog=None,  # type: ignore[arg-type]
            milvus=MilvusConfig(uri="http://127.0.0.1:1"),
            bulk=BulkConfig(),
            encoders={MODEL: encoder},
        )

        def compare(
            settings: EncoderSettings, version: EncoderInfo, files: Sequence[tuple[str, str]]
        ) -> Compared | None:
            client = LocalEncoder(checkpoint=settings.config.checkpoint)
            if asyncio.run(client.describe()) != version:
                return None
            return asyncio.run(compare_vectors(client, version, shop.catalog, shop.store, files))

        with shop.job("verify") as run:
            context = JobContext(run, settings, shop.catalog)
            configured = {LIVE: (info("old"), encoder)}
            yield Checked(shop, Verification(context, shop.store, configured, compare), tmp_path)


def test_a_sound_service_agrees_and_says_what_was_looked_at(checked: Checked) -> None:
    assert checked.kinds() == {}
    assert checked.verification.checked == {
        "pictures": 6,
        "versions": {LIVE: {"vectors": 6, "encoded_anew": 6}},
    }
    assert checked.kinds(percent=0) == {}
    assert checked.verification.checked["versions"][LIVE]["encoded_anew"] == 0


def test_a_lost_collection_is_built_again(checked: Checked) -> None:
    checked.shop.store.drop_collection(LIVE)
    assert checked.kinds() == {"missing_collection": 6}
    checked.assert_repaired()
    assert checked.shop.live == LIVE


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
    findings = checked.verification.compare(None, 100)
    (told,) = findings.told()
    assert (told["kind"], told["count"], told["repairable"]) == ("changed_vector", 1, True)
    assert told["examples"] == [{"key": row.item.key, "product_id": "p0"}]
    checked.assert_repaired()
    assert np.allclose(checked.shop.store.fetch(LIVE, [row.item.key])[row.item.key], row.vector)


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
    checked.shop.catalog.ledger.forget(LIVE, [row.item.key])
    assert checked.kinds() == {"orphan_vector": 1, "missing_picture": 1}
    checked.assert_repaired()


def test_pictures_that_are_missing_or_gone_are_followed(checked: Checked) -> None:
    checked.shop.put("new")
    checked.shop.catalog.products.delete("p1")
    assert checked.kinds() == {"missing_picture": 1, "obsolete_row": 1}
    checked.assert_repaired()


def test_a_picture_in_quarantine_is_tried_once_more(checked: Checked) -> None:
    item = checked.first().item
    checked.shop.store.delete(LIVE, [item.key])
    checked.shop.catalog.ledger.open(LIVE, [item])
    checked.shop.catalog.ledger.fail(LIVE, [(item, InvalidImage("the memory was full"))])
    assert checked.kinds() == {"quarantined_picture": 1}
    checked.assert_repaired()


def test_a_missing_or_damaged_file_is_told_with_its_product_and_stays(checked: Checked) -> None:
    pictures = {name: checked.shop.catalog.products.get(name).pictures[0] for name in ("p2", "p3", "p4")}
    files = {name: next((checked.folder / "blobs").rglob(each.sha256)) for name, each in pictures.items()}
    files["p2"].unlink()
    files["p3"].write_bytes(b"short")
    flipped = bytearray(files["p4"].read_bytes())
    flipped[-1] ^= 1
    files["p4"].write_bytes(flipped)
    found = {each["kind"]: each for each in checked.verification.compare(None, 100).told()}
    assert set(found) == {"missing_file", "damaged_file"}
    assert not found["missing_file"]["repairable"]
    assert [each["product_id"] for each in found["missing_file"]["examples"]] == ["p2"]
    assert {each["product_id"] for each in found["damaged_file"]["examples"]} == {"p3", "p4"}
    checked.repair()
    assert set(checked.kinds()) == {"missing_file", "damaged_file"}


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


def _with(item: IndexItem, **changes: Any) -> IndexItem:
    return replace(item, **changes)
