"""Filling by `make demo` of a service that has API keys; encoders in this process, so no Ray."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from core.api_keys import NO_KEYS_NOTICE
from demo.run import LOCKED_NOTICE, fill
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service, served

PRODUCTS = 2


@pytest.fixture
def base_url(tmp_path: Path) -> Iterator[str]:
    with local_service(tmp_path, {"first": LocalEncoder("first")}) as app, served(app) as url:
        yield url


def make_key(base_url: str, *scopes: str, admin: str | None = None) -> str:
    headers = {"Authorization": f"Bearer {admin}"} if admin else {}
    answer = httpx.post(f"{base_url}/v1/keys", json={"name": "k", "scopes": scopes}, headers=headers)
    return str(answer.raise_for_status().json()["key"])


def products(base_url: str, key: str) -> int:
    answer = httpx.get(f"{base_url}/v1/products", headers={"Authorization": f"Bearer {key}"})
    return len(answer.raise_for_status().json())


def test_without_keys_the_catalog_is_filled_and_the_danger_named(base_url: str) -> None:
    assert fill(base_url, PRODUCTS, None) == NO_KEYS_NOTICE
    assert products(base_url, "none") == PRODUCTS


def test_a_service_with_keys_starts_all_the_same_and_says_how_to_fill_it(base_url: str) -> None:
    admin = make_key(base_url, "admin")
    assert fill(base_url, PRODUCTS, None) == LOCKED_NOTICE
    assert products(base_url, admin) == 0
    fill(base_url, PRODUCTS, make_key(base_url, "write", admin=admin))
    assert products(base_url, admin) == PRODUCTS


def test_a_key_that_may_not_write_is_named_as_the_reason(base_url: str) -> None:
    admin = make_key(base_url, "admin")
    for key in ("vitrine_wrong", make_key(base_url, "read", admin=admin)):
        with pytest.raises(RuntimeError, match="VITRINE_KEY was refused"):
            fill(base_url, PRODUCTS, key)
