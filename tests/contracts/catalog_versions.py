"""What every database of the catalog must do with the history of model versions."""

import pytest

from catalog.opening import Catalog
from catalog.versions import SqlVersions
from core.errors import InvalidImage
from tests.contracts.catalog_things import RED, Clock, encoder

OLD, NEW = encoder(fingerprint="0" * 12), encoder(fingerprint="1" * 12)


class VersionsContract:
    """Run by a class that defines the fixture `database_url`."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def versions(self, catalog: Catalog, clock: Clock) -> SqlVersions:
        for info in (OLD, NEW, encoder("dinov2")):
            catalog.ledger.register(info)
        return SqlVersions(catalog.engine, clock)

    def test_settings_are_kept_and_outlive_another_registration(
        self, catalog: Catalog, versions: SqlVersions
    ) -> None:
        assert versions.settings(OLD.collection) is None
        versions.keep_settings(OLD.collection, {"checkpoint": "${WEIGHTS}/old", "pooling": None})
        catalog.ledger.register(OLD)
        assert versions.settings(OLD.collection) == {"checkpoint": "${WEIGHTS}/old", "pooling": None}
        assert versions.settings(NEW.collection) is None
        assert versions.settings("missing") is None

    def test_versions_take_turns(self, versions: SqlVersions, clock: Clock) -> None:
        assert versions.retired("openclip") == []
        versions.retire(OLD.collection)
        clock.move(1)
        versions.retire(NEW.collection)
        assert versions.retired("openclip") == [NEW, OLD]
        clock.move(1)
        versions.retire(OLD.collection)
        assert versions.retired("openclip") == [OLD, NEW]
        assert versions.retired("dinov2") == []

    def test_the_last_choice_is_known_from_a_time_on(self, versions: SqlVersions, clock: Clock) -> None:
        began = clock.now
        assert versions.chosen("openclip", began) is None
        versions.choose(OLD.collection)
        clock.move(1)
        versions.choose(NEW.collection)
        assert versions.chosen("openclip", began) == NEW
        assert versions.chosen("dinov2", began) is None
        clock.move(1)
        assert versions.chosen("openclip", clock.now) is None

    def test_a_forgotten_version_leaves_no_row(self, catalog: Catalog, versions: SqlVersions) -> None:
        catalog.products.put("shirt", "", "", {}, [RED])
        items = catalog.ledger.items("shirt")
        for info in (OLD, NEW):
            catalog.ledger.open(info.collection, items)
            catalog.ledger.settle(info.collection, items)
        versions.forget(OLD.collection)
        assert OLD not in catalog.ledger.versions()
        assert catalog.ledger.counts(OLD.collection).indexed == 0
        assert catalog.ledger.counts(NEW.collection).indexed == 1
        versions.forget(OLD.collection)

    def test_an_audit_walks_over_all_pictures_and_rows(
        self, catalog: Catalog, versions: SqlVersions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.audit._PAGE", 2)
        for number in range(5):
            catalog.products.put(f"p{number}", "", "", {}, [RED])
        items = [item for number in range(5) for item in catalog.ledger.items(f"p{number}")]
        told = {each.key: (each.product_id, each.sha256, each.bytes) for each in catalog.audit.pictures()}
        assert told == {item.key: (item.product_id, item.sha256, len(RED.data)) for item in items}
        some = [each.key for each in catalog.audit.pictures("4", "c")]
        assert some == sorted(item.key for item in items if "4" <= item.image_id < "c")
        catalog.ledger.open(OLD.collection, items)
        catalog.ledger.settle(OLD.collection, items[:2])
        assert [key for key, _ in catalog.audit.rows(OLD.collection, "4", "c")] == some
        catalog.ledger.fail(OLD.collection, [(items[2], InvalidImage("broken"))])
        states = dict(catalog.audit.rows(OLD.collection))
        assert [states[item.key] for item in items] == ["settled", "settled", "failed", "open", "open"]
        assert list(catalog.audit.rows(NEW.collection)) == []
        keys = [items[4].key, "f" * 32 + ":1", "odd"]
        assert catalog.audit.known(OLD.collection, keys) == {items[4].key}
