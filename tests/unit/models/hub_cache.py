"""Checkpoints in the layout of the hub's local cache: what a pod with mounted weights and no network has."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fill(cache: Path, repository: str, files: Iterable[Path]) -> Path:
    """Put the files into the cache as `main` of a repository, weights named by their hash; the snapshot."""
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / _COMMIT
    for folder in (home / "refs", home / "blobs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(_COMMIT)
    for file in files:
        content = file.read_bytes()
        # The hub names large files by sha256 and small ones by git's own, shorter hash.
        digest = hashlib.sha1 if file.suffix in {".json", ".txt"} else hashlib.sha256
        blob = home / "blobs" / digest(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
    return snapshot
