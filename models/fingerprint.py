"""Fingerprints: short hashes that distinguish the versions of a model.

Two encoders share a fingerprint only if their vectors may be compared. It covers the contents of the files that
vectors depend on, and how they are used. It leaves out paths, device and host, so all replicas of a version
report the same one.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

_DIGITS = 12
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BOOKKEEPING = {"_name_or_path", "transformers_version", "_commit_hash"}
"""Keys of a config.json that libraries rewrite without effect on the vectors."""


def fingerprint(files: Iterable[Path], settings: Mapping[str, object]) -> str:
    """Hash the files (weights, configs, tokenizers) and settings; 12 lower-case hex digits.

    Files count by name and content, JSON files by value. `settings` must be JSON.
    """
    digests = {path.name: _digest(path) for path in files}
    content = json.dumps({"files": digests, "settings": settings}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGITS]


def _digest(path: Path) -> str:
    if path.suffix == ".json":
        return _json_digest(path)
    # The hub's cache names a large file by its sha256, so downloaded weights need not be read again.
    target = path.resolve()
    if path.is_symlink() and _SHA256.fullmatch(target.name):
        return target.name
    state = target.stat()
    return _file_digest(target, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_digest(path: Path, _size: int, _modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _json_digest(path: Path) -> str:
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if key not in _BOOKKEEPING}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
