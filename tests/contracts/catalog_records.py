"""Contract of every database with API keys, model versions and imports."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from catalog.imports import KnownImage, RowError
from catalog.ledger import SqlVersions
from catalog.opening import Catalog
from core.api_keys import ApiKey, Scope
from core.errors import Conflict, InvalidImage, NotFound
from tests.support.catalog_fixtures import RED, Clock, encoder

MORNING = datetime(2026, 5, 1, 8, tzinfo=UTC)


def key(key_id: str, *scopes: Scope) -> ApiKey:
    return ApiKey(key_id, f"key {key_id}", scopes, "0" * 64, None, None, MORNING)


class ApiKeysContract:
    """Run on what the fixture `database_url` names."""

    def test_a_key_is_read_back_as_it_was_kept(self, catalog: Catalog) -> None:
        kept = ApiKey("a", "shop", ("read", "admin"), "1" * 64, 2.5, 7, MORNING)
        catalog.api_keys.add(kept, other_admin=False)
        assert catalog.api_keys.all() == [kept]

    def test_the_first_key_must_be_an_admin(self, catalog: Catalog) -> None:
        with pytest.raises(Conflict, match="first key"):
            catalog.api_keys.add(key("a", "write"), other_admin=False)
        assert catalog.api_keys.all() == []
        catalog.api_keys.add(key("a", "write"), other_admin=True)
        assert [each.key_id for each in catalog.api_keys.all()] == ["a"]

    def test_a_revoked_key_stays_on_the_list(self, catalog: Catalog) -> None:
        catalog.api_keys.add(key("a", "admin"), other_admin=False)
        catalog.api_keys.add(key("b", "read"), other_admin=False)
        catalog.api_keys.revoke("b", other_admin=False)
        first = catalog.api_keys.all()[1].revoked_at
        catalog.api_keys.revoke("b", other_admin=False)
        assert first is not None
        assert [each.revoked_at for each in catalog.api_keys.all()] == [None, first]

    def test_the_last_admin_key_is_not_revoked(self, catalog: Catalog) -> None:
        catalog.api_keys.add(key("a", "admin"), other_admin=False)
        with pytest.raises(Conflict, match="last admin key"):
            catalog.api_keys.revoke("a", other_admin=False)
        assert catalog.api_keys.all()[0].revoked_at is None
        catalog.api_keys.revoke("a", other_admin=True)
        assert catalog.api_keys.all()[0].revoked_at is not None

    def test_a_key_that_does_not_exist_cannot_be_revoked(self, catalog: Catalog) -> None:
        with pytest.raises(NotFound, match="no key 'x'"):
            catalog.api_keys.revoke("x", other_admin=True)

    def test_the_last_use_is_remembered(self, catalog: Catalog) -> None:
        catalog.api_keys.add(key("a", "admin"), other_admin=False)
        catalog.api_keys.used({"a": MORNING, "gone": MORNING})
        assert catalog.api_keys.all()[0].last_used_at == MORNING


OLD, NEW = encoder(fingerprint="0" * 12), encoder(fingerprint="1" * 12)


class VersionsContract:
    """Run on what the fixture `database_url` names."""

    @pytest.fixture(autouse=True)
    def _opened(self, catalog: Catalog, clock: Clock) -> None:
        for info in (OLD, NEW, encoder("dinov2")):
            catalog.ledger.register(info)
        self.catalog, self.clock, self.versions = catalog, clock, SqlVersions(catalog.engine, clock)

    def test_settings_are_kept_and_outlive_another_registration(self) -> None:
        assert self.versions.settings(OLD.collection) is None
        self.versions.keep_settings(OLD.collection, {"checkpoint": "${WEIGHTS}/old", "pooling": None})
        self.catalog.ledger.register(OLD)
        assert self.versions.settings(OLD.collection) == {"checkpoint": "${WEIGHTS}/old", "pooling": None}
        assert self.versions.settings(NEW.collection) is None
        assert self.versions.settings("missing") is None

    def test_versions_take_turns(self) -> None:
        assert self.versions.retired("openclip") == []
        self.versions.retire(OLD.collection)
        self.clock.move(1)
        self.versions.retire(NEW.collection)
        assert self.versions.retired("openclip") == [NEW, OLD]
        self.clock.move(1)
        self.versions.retire(OLD.collection)
        assert self.versions.retired("openclip") == [OLD, NEW]
        assert self.versions.retired("dinov2") == []

    def test_the_last_choice_is_known_from_a_time_on(self) -> None:
        began = self.clock.now
        assert self.versions.chosen("openclip", began) is None
        self.versions.choose(OLD.collection)
        self.clock.move(1)
        self.versions.choose(NEW.collection)
        assert self.versions.chosen("openclip", began) == NEW
        assert self.versions.chosen("dinov2", began) is None
        self.clock.move(1)
        assert self.versions.chosen("openclip", self.clock.now) is None

    def test_a_forgotten_version_leaves_no_row(self) -> None:
        self.catalog.products.put("shirt", "", "", {}, [RED])
        items = self.catalog.ledger.items("shirt")
        for info in (OLD, NEW):
            self.catalog.ledger.open(info.collection, items)
            self.catalog.ledger.settle({info.collection: items})
        self.versions.forget(OLD.collection)
        assert OLD not in self.catalog.ledger.versions()
        assert self.catalog.ledger.counts(OLD.collection).indexed == 0
        assert self.catalog.ledger.counts(NEW.collection).indexed == 1
        self.versions.forget(OLD.collection)

    def test_an_audit_walks_over_all_images_and_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("catalog.audit._PAGE", 2)
        for number in range(5):
            self.catalog.products.put(f"p{number}", "", "", {}, [RED])
        items = [item for number in range(5) for item in self.catalog.ledger.items(f"p{number}")]
        listed = {
            each.key: (each.product_id, each.sha256, each.bytes) for each in self.catalog.audit.images()
        }
        assert listed == {item.key: (item.product_id, item.sha256, len(RED.data)) for item in items}
        some = [each.key for each in self.catalog.audit.images("4", "c")]
        assert some == sorted(item.key for item in items if "4" <= item.image_id < "c")
        self.catalog.ledger.open(OLD.collection, items)
        self.catalog.ledger.settle({OLD.collection: items[:2]})
        assert [key for key, _ in self.catalog.audit.rows(OLD.collection, "4", "c")] == some
        self.catalog.ledger.fail(OLD.collection, [(items[2], InvalidImage("broken"))])
        states = dict(self.catalog.audit.rows(OLD.collection))
        assert [states[item.key] for item in items] == ["settled", "settled", "failed", "open", "open"]
        assert {state for _, state in self.catalog.audit.rows(NEW.collection)} == {"open"}
        keys = [items[4].key, "f" * 32 + ":1", "odd"]
        assert self.catalog.audit.known(OLD.collection, keys) == {items[4].key}


KNOWN = KnownImage('"1"', None, "a" * 64, "image/png", 8, 9)


class ImportsContract:
    """Run on what the fixture `database_url` names."""

    def test_a_position_counts_only_for_the_same_reading_of_the_same_source(self, catalog: Catalog) -> None:
        imports = catalog.imports
        begun = imports.begin("shop", "plan", "job-1")
        imports.save(replace(begun, position="5", counts={"rows": 5}), {"p": 5}, [])
        resumed = imports.begin("shop", "plan", "job-2")
        assert resumed == replace(begun, position="5", counts={"rows": 5})
        assert imports.rows_of(resumed, ["p", "q"]) == {"p": 5}
        anew = imports.begin("shop", "another plan", "job-3")
        assert (anew.position, anew.generation) == (None, begun.generation + 1)
        assert imports.rows_of(anew, ["p"]) == {}
        imports.finish("shop", {})
        assert imports.begin("shop", "another plan", "job-4").position is None

    def test_a_row_that_was_broken_counts_for_no_product(self, catalog: Catalog) -> None:
        imports = catalog.imports
        state = imports.begin("shop", "plan", "job-1")
        other = imports.begin("other", "plan", "job-2")
        imports.save(other, {"x": 7}, [RowError(2, "y", "broken")])
        imports.save(state, {"good": 1, "bad": 2, "later": 4}, [RowError(2, "bad", "broken")])
        imports.save(state, {}, [RowError(3, "later", "replaced")])
        assert imports.rows_of(state, ["good", "bad", "later"]) == {"good": 1, "later": 4}
        imports.save(state, {"bad": 5}, [])
        assert imports.rows_of(state, ["bad"]) == {"bad": 5}

    def test_what_vanished_is_what_an_earlier_import_had(self, catalog: Catalog) -> None:
        imports = catalog.imports
        first = imports.begin("shop", "plan", "job-1")
        other = imports.begin("other", "plan", "job-2")
        imports.save(first, {"a": 1, "b": 2, "c": 3}, [])
        imports.save(other, {"x": 1}, [])
        imports.finish("shop", {})
        second = imports.begin("shop", "plan", "job-3")
        imports.save(second, {"b": 1}, [])
        assert imports.vanished(second) == (["a", "c"], 3)
        imports.forget("shop", ["a"])
        assert imports.vanished(second) == (["c"], 2)

    def test_ids_and_errors_that_no_database_holds_are_borne(self, catalog: Catalog) -> None:
        imports = catalog.imports
        state = imports.begin("shop", "plan", "job-1")
        odd = ["a/b", "nul\0", "half\ud800", "x" * 500, ""]
        imports.save(
            state, {each: row for row, each in enumerate([*odd, "p"])}, [RowError(1, "half\ud800", "\0")]
        )
        assert imports.rows_of(state, [*odd, "p"]) == {"p": 5}
        assert [each.row for each in imports.errors("job-1", 10)] == [1]
        with pytest.raises(NotFound):
            imports.errors("job-2", 10)

    def test_the_errors_of_an_import_end_with_the_next_one(self, catalog: Catalog) -> None:
        imports = catalog.imports
        state = imports.begin("shop", "plan", "job-1")
        imports.save(state, {}, [RowError(1, "p", "first"), RowError(2, None, "second")])
        imports.save(state, {}, [RowError(2, "q", "again")])
        assert imports.errors("job-1", 10) == [RowError(1, "p", "first"), RowError(2, "q", "again")]
        imports.finish("shop", {})
        imports.begin("shop", "plan", "job-2")
        assert imports.errors("job-2", 10) == []

    def test_images_are_known_by_paths_and_urls_of_any_kind(self, catalog: Catalog) -> None:
        references = ["/shop/a.png", "https://shop.test/" + "x" * 4000, "/shop/\udcff.png", "https://\ud800"]
        catalog.imported_images.remember(dict.fromkeys(references, KNOWN))
        changed = replace(KNOWN, etag=None, last_modified="today")
        catalog.imported_images.remember({references[0]: changed})
        catalog.imported_images.remember({})
        found = catalog.imported_images.find([*references, "unknown"])
        assert found == {**dict.fromkeys(references, KNOWN), references[0]: changed}
        catalog.imported_images.remember({references[1]: replace(KNOWN, sha256="b" * 64)})
        catalog.imported_images.forget([KNOWN.sha256, "c" * 64])
        assert list(catalog.imported_images.find(references)) == [references[1]]
