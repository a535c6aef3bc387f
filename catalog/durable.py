"""A local file that is whole and on disk before it has its name."""

import os
import uuid
from pathlib import Path


def write_durably(path: str, data: bytes) -> None:
    """Write `path` unless it holds just that; a crash leaves all of it or nothing.

    After the return the file survives a loss of power, whoever wrote it.

    Raises:
        OSError: the file system refused.
    """
    target = Path(path)
    _make_folders(target.parent)
    if not _holds(target, data):
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            _write_and_sync(temporary, data)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    # Also for a file that was there: its writer may have been killed between the rename and this.
    _sync_folder(target.parent)


def remove_durably(path: str) -> None:
    """Delete a file so that no loss of power brings it back; nothing happens when there is none.

    Raises:
        OSError: the file system refused.
    """
    target = Path(path)
    target.unlink(missing_ok=True)
    # Also for one that was gone: who removed it may have been killed before this.
    if target.parent.is_dir():
        _sync_folder(target.parent)


def sync_file(path: str) -> None:
    """Bring a file that somebody has written, and its name, to disk.

    Raises:
        OSError: the file system refused.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync_folder(Path(path).parent)


def _holds(path: Path, data: bytes) -> bool:
    # A disk may turn bits, which leaves the size as it was, or not give them back at all.
    try:
        return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _make_folders(folder: Path) -> None:
    missing = [level for level in (folder, *folder.parents) if not level.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    # A new folder is durable when the folder around it is.
    for level in reversed(missing):
        _sync_folder(level.parent)


def _write_and_sync(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
