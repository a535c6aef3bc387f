"""What every database of the catalog must do with API keys."""

from datetime import UTC, datetime

import pytest

from catalog.opening import Catalog
from core.errors import Conflict, NotFound
from core.keys import ApiKey, Scope

MORNING = datetime(2026, 5, 1, 8, tzinfo=UTC)


def key(key_id: str, *scopes: Scope) -> ApiKey:
    return ApiKey(key_id, f"key {key_id}", scopes, "0" * 64, None, None, MORNING)


class ApiKeysContract:
    """Run by a class that defines the fixture `database_url`."""

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
