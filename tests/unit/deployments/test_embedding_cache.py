import numpy as np
import pytest

from deployments.replicas.embedding_cache import EmbeddingCache, content_key

DIMENSION = 8
BYTES = 4 * DIMENSION


def vector(value: float) -> np.ndarray:
    return np.full(DIMENSION, value, np.float32)


def keys(count: int) -> list[bytes]:
    return [content_key("0" * 12, str(number)) for number in range(count)]


def test_what_was_put_comes_back_and_cannot_be_changed_by_its_reader() -> None:
    cache, key = EmbeddingCache(10 * BYTES, DIMENSION), keys(1)[0]
    assert cache.get(key) is None
    cache.put(key, vector(0.5))
    read = cache.get(key)
    assert read is not None
    assert read.dtype == np.float32
    read[:] = 0
    again = cache.get(key)
    assert again is not None
    assert again.tolist() == vector(0.5).tolist()


def test_the_least_recently_used_makes_room() -> None:
    cache, (a, b, c) = EmbeddingCache(2 * BYTES, DIMENSION), keys(3)
    cache.put(a, vector(1))
    cache.put(b, vector(2))
    cache.get(a)
    cache.put(c, vector(3))
    assert cache.get(b) is None
    for key, value in ((a, 1), (c, 3)):
        held = cache.get(key)
        assert held is not None
        assert held[0] == value


def test_putting_the_same_key_again_takes_no_more_room() -> None:
    cache, (a, b) = EmbeddingCache(2 * BYTES, DIMENSION), keys(2)
    for value in range(5):
        cache.put(a, vector(value))
    cache.put(b, vector(9))
    held = cache.get(a)
    assert held is not None
    assert held[0] == 4
    assert len(cache) == 2


@pytest.mark.parametrize("vectors", [0, 1, 7])
def test_never_more_vectors_than_the_bytes_hold(vectors: int) -> None:
    cache = EmbeddingCache(vectors * BYTES + BYTES - 1, DIMENSION)
    for key in keys(20):
        cache.put(key, vector(1))
    assert len(cache) == vectors


def test_keys_differ_by_version_kind_and_content() -> None:
    inputs = [("a", b"x"), ("a", "x"), ("a", b"y"), ("b", b"x"), ("b", "x"), ("", b"a x")]
    assert len({content_key(version, item) for version, item in inputs}) == len(inputs)
    assert content_key("a", b"x") == content_key("a", bytes(bytearray(b"x")))
