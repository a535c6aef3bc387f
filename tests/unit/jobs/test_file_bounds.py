"""What reads image files side by side holds a bounded number of bytes, not of files."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from catalog.audit import StoredImage
from catalog.opening import Catalog
from core.concurrency import WeightedSemaphore
from jobs.verification.checks import check_files
from vitrine.cli.search import _embedded


class Counted(WeightedSemaphore):
    """Notes how many hold it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, weight: int, limit: int, until: float | None = None) -> Iterator[None]:
        with super().holding(weight, limit, until):
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
            try:
                yield
            finally:
                with self._lock:
                    self.now -= 1


@pytest.mark.parametrize(("most_bytes", "at_once"), [(1000, 1), (2500, 2)])
def test_files_that_are_checked_at_once_are_bounded_by_bytes(
    most_bytes: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {hashlib.sha256(data).hexdigest(): data for data in (bytes([n]) * 1000 for n in range(64))}
    readers, counted = threading.Barrier(at_once), Counted()

    def get(sha256: str) -> bytes:
        # As many as may read wait here for each other, so that they are seen to do it side by side.
        readers.wait(30)
        return contents[sha256]

    monkeypatch.setattr("jobs.verification.checks._reading", counted)
    monkeypatch.setattr("jobs.verification.checks.MAX_READ_BYTES", most_bytes)
    catalog = cast(Catalog, SimpleNamespace(blobs=SimpleNamespace(find=get)))
    images = [StoredImage(name, "p", name, 1000) for name in contents]
    with ThreadPoolExecutor(8) as pool:
        found = check_files(catalog, images, lambda _: True, pool)
    assert found == {"missing_file": [], "damaged_file": []}
    assert counted.most == at_once


def test_the_command_line_sends_images_in_batches_by_bytes(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.concurrency.MAX_ENCODE_BYTES", 2500)
    names = [str(tmp_path / f"{n}.png") for n in range(5)]
    for name in names:
        with open(name, "wb") as file:
            file.write(bytes(1000))
    sent: list[int] = []

    def send(_: str, inputs: Any) -> Any:
        sent.append(len(inputs))
        item = SimpleNamespace(model_dump=lambda **_: {"embedding": [1.0]})
        return SimpleNamespace(data=[item] * len(inputs), model="fake", fingerprint="f")

    assert [name for name, _ in _embedded(send, "fake", names, 4)] == names
    assert sent == [2, 2, 1]
