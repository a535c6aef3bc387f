"""API keys: their form, and what is stored of them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.api_keys import SCOPES, Scope, allows, digest, key_id_of, matches, new_secret


def test_a_key_carries_its_id_and_256_random_bits() -> None:
    key_id, key = new_secret()
    assert key_id_of(key) == key_id
    secret = key.removeprefix(f"vitrine_{key_id}_")
    assert len(bytes.fromhex(secret)) == 32
    assert new_secret()[1] != key


def test_what_is_kept_of_a_key_is_its_hash_and_never_the_key() -> None:
    _, key = new_secret()
    assert digest(key) == hashlib.sha256(key.encode()).hexdigest()
    assert matches(key, digest(key))


@given(st.integers(0, 84))
def test_a_key_with_one_wrong_character_does_not_match(place: int) -> None:
    _, key = new_secret()
    place %= len(key)
    wrong = key[:place] + ("0" if key[place] != "0" else "1") + key[place + 1 :]
    assert not matches(wrong, digest(key))


@given(st.text(max_size=100))
def test_anything_may_be_shown_as_a_key(text: str) -> None:
    assert key_id_of(text) is None


@pytest.mark.parametrize("granted", SCOPES)
def test_a_scope_holds_those_below_it_and_no_other(granted: Scope) -> None:
    held = [needed for needed in SCOPES if allows([granted], needed)]
    assert (
        held == {"read": ["read"], "write": ["read", "write"], "admin": ["read", "write", "admin"]}[granted]
    )
    assert not allows([], granted)
