"""Batches of calls, errors between processes, API keys and timed stages."""

import hashlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.api_keys import SCOPES, Scope, allows, digest, key_id_of, matches, new_secret
from core.concurrency import batched, batched_by_bytes
from core.errors import FetchFailed, UnfetchableUrl, VitrineError
from core.telemetry import Stage, StageName, watch_stages


@given(st.lists(st.integers(0, 30), max_size=60))
def test_batches_keep_order_and_limits(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.concurrency.MAX_ENCODE_BYTES", 20)
        patch.setattr("core.concurrency.MAX_ENCODE_INPUTS", 4)
        cut = list(batched_by_bytes(sizes, lambda size: size))
    assert [size for batch in cut for size in batch] == sizes
    assert all(len(batch) <= 4 and (sum(batch) <= 20 or len(batch) == 1) for batch in cut)


def test_batches_may_have_fewer_inputs_and_come_of_a_stream() -> None:
    assert list(batched_by_bytes([1] * 5, lambda size: size, 2)) == [[1, 1], [1, 1], [1]]
    stream = iter(range(5))
    assert next(batched(stream, 2)) == [0, 1]
    assert list(stream) == [2, 3, 4]


def test_an_error_in_other_words_keeps_what_it_carries_also_between_processes() -> None:
    error = FetchFailed("too busy")
    error.retry_after_s = 7.0
    reworded = error.at("images[1]").reworded("image 'https://shop/1.jpg': too busy")
    assert isinstance(reworded, FetchFailed)
    assert (reworded.message, str(reworded)) == ("image 'https://shop/1.jpg': too busy",) * 2
    assert (reworded.retry_after_s, reworded.param) == (7.0, "images[1]")
    assert error.message == "too busy"
    gone = UnfetchableUrl("gone")
    gone.status = 410
    traveled: VitrineError = pickle.loads(pickle.dumps(gone.reworded("row 3: gone")))
    assert isinstance(traveled, UnfetchableUrl)
    assert (traveled.message, traveled.status) == ("row 3: gone", 410)


def test_a_key_carries_its_id_and_256_random_bits_and_its_hash_is_kept() -> None:
    key_id, key = new_secret()
    assert key_id_of(key) == key_id
    assert len(bytes.fromhex(key.removeprefix(f"vitrine_{key_id}_"))) == 32
    assert new_secret()[1] != key
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
    assert held == ["read", "write", "admin"][: ["read", "write", "admin"].index(granted) + 1]
    assert not allows([], granted)


@pytest.fixture
def watched() -> Iterator[list[tuple[str, str, str]]]:
    reported: list[tuple[str, str, str]] = []

    @contextmanager
    def watch(stage: StageName, model: str) -> Iterator[None]:
        try:
            yield
            reported.append((stage, model, "ok"))
        except ValueError:
            reported.append((stage, model, "failed"))
            raise

    watch_stages(watch)
    yield reported
    watch_stages(None)


def test_a_stage_is_timed_and_the_watch_gets_its_end_and_errors_go_on(
    watched: list[tuple[str, str, str]],
) -> None:
    with Stage("search", "dinov2") as stage:
        assert stage.ms == 0
    assert stage.ms > 0
    with pytest.raises(ValueError, match="broken"), Stage("encode", "blip2"):
        raise ValueError("broken")
    expected = [("search", "dinov2", "ok"), ("encode", "blip2", "failed")]
    assert watched == expected
    watch_stages(None)
    with Stage("fuse", "ensemble"):
        pass
    assert watched == expected, "nothing is reported after the watch has ended"
