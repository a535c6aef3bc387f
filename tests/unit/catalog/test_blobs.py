"""Image files by their sha256."""

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catalog.blobs import FsspecBlobs
from core.errors import ConfigError, InvalidInput, NotFound, Unavailable

DATA = b"the bytes of an image" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["path", "file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> FsspecBlobs:
    """A store on each kind of file system that needs no server; the folder is not there yet."""
    urls = {
        "path": f"{tmp_path}/new/blobs",
        "file": f"file://{tmp_path}/new/blobs/",
        "memory": f"memory://{tmp_path.name}",
    }
    return FsspecBlobs(urls[request.param])


@pytest.fixture
def local(tmp_path: Path) -> FsspecBlobs:
    """A store in a local folder."""
    return FsspecBlobs(str(tmp_path))


def named(folder: Path) -> Path:
    """Where a local store keeps DATA."""
    return folder / SHA256[:2] / SHA256[2:4] / SHA256


def test_what_is_put_is_read_back(blobs: FsspecBlobs) -> None:
    assert blobs.put(DATA) == SHA256
    assert blobs.put(DATA) == SHA256
    assert blobs.get(SHA256) == DATA
    assert blobs.get(blobs.put(b"")) == b""


def test_a_missing_file_is_not_found(blobs: FsspecBlobs) -> None:
    with pytest.raises(NotFound):
        blobs.get(SHA256)
    blobs.put(DATA)
    with pytest.raises(NotFound):
        blobs.get(SHA256[:63] + ("0" if SHA256[63] != "0" else "1"))


@pytest.mark.parametrize(
    "bad", ["", "..", SHA256[:-1], SHA256 + "0", SHA256.upper(), "../" + SHA256[3:], SHA256 + "\n"]
)
def test_what_is_no_sha256_is_refused(blobs: FsspecBlobs, bad: str) -> None:
    with pytest.raises(InvalidInput, match="64 lower-case hex digits"):
        blobs.get(bad)


def test_the_same_bytes_are_written_once_in_two_levels_of_folders(local: FsspecBlobs, tmp_path: Path) -> None:
    local.put(DATA)
    before = named(tmp_path).stat()
    FsspecBlobs(str(tmp_path)).put(DATA)
    after = named(tmp_path).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [named(tmp_path)]


@pytest.mark.parametrize("damaged", [DATA[:10], b"?" + DATA[1:]])
def test_a_damaged_file_is_written_anew(blobs: FsspecBlobs, damaged: bytes) -> None:
    blobs.put(DATA)
    blobs._files.pipe_file(blobs._path(SHA256), damaged)
    blobs.put(DATA)
    assert blobs.get(SHA256) == DATA


def test_a_file_is_on_disk_before_it_has_its_name(
    local: FsspecBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync = os.fsync

    def watch(descriptor: int) -> None:
        where = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        is_named = named(tmp_path).exists()
        steps.append(f"{'file' if where.is_file() else where.relative_to(tmp_path)}, named: {is_named}")
        if where.is_file():
            assert where.parent == named(tmp_path).parent
            assert where.read_bytes() == DATA
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    local.put(DATA)
    first, second = SHA256[:2], f"{SHA256[:2]}/{SHA256[2:4]}"
    assert steps == [
        "., named: False",
        f"{first}, named: False",
        "file, named: False",
        f"{second}, named: True",
    ]


def test_a_write_that_fails_leaves_nothing_and_can_be_repeated(
    local: FsspecBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    local.put(b"another, so that the root folder is there")
    with monkeypatch.context() as patch:
        patch.setattr("catalog.blobs._sync", lambda _folder: None)
        patch.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable, match="try again"):
            local.put(DATA)
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 1
    local.put(DATA)
    assert local.get(SHA256) == DATA


def test_many_threads_may_store_the_same_bytes(blobs: FsspecBlobs) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(blobs.put, [DATA] * 40)) == {SHA256}
    assert blobs.get(SHA256) == DATA


@pytest.mark.parametrize("url", ["nonsense://bucket/prefix", "s3://bucket/prefix"])
def test_a_store_that_cannot_be_opened_is_a_configuration_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a machine where the optional package for the protocol is not installed.
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigError, match="blobs_url"):
        FsspecBlobs(url)


def test_a_removed_file_is_gone_and_may_be_removed_again_and_stored_again(blobs: FsspecBlobs) -> None:
    sha256 = blobs.put(DATA)
    blobs.remove(sha256)
    assert (blobs.size(sha256), blobs.sizes(sha256[:2])) == (None, {})
    with pytest.raises(NotFound):
        blobs.get(sha256)
    blobs.remove(sha256)
    assert blobs.put(DATA) == sha256
    assert blobs.get(sha256) == DATA


def test_only_what_a_writer_left_long_ago_counts_as_abandoned(local: FsspecBlobs, tmp_path: Path) -> None:
    sha256 = local.put(DATA)
    folder = tmp_path / sha256[:2] / sha256[2:4]
    old, young = folder / ".old.tmp", folder / ".young.tmp"
    for each in (old, young):
        each.write_bytes(DATA)
    os.utime(old, (0, 0))
    assert local.remove_abandoned(sha256[:2]) == 1
    assert sorted(folder.iterdir()) == [young, folder / sha256]


def test_a_put_does_not_rely_on_a_listing_from_before_a_removal() -> None:
    blobs = FsspecBlobs("memory://listed")
    files = blobs._files
    listed: set[str] = set()

    class Caching(type(files)):  # type: ignore[misc]
        """Answers from its listing, as those of object stores do."""

        def info(self, path: str, **more: object) -> dict[str, object]:
            return {"size": len(DATA)} if listed else dict(super().info(path, **more))

        def invalidate_cache(self, path: str | None = None) -> None:
            listed.clear()

    blobs._files = Caching(skip_instance_cache=True)
    listed.add(SHA256)
    blobs.put(DATA)
    assert blobs.get(SHA256) == DATA
