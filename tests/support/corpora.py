"""Public files to test with. They are downloaded for one run, and large packages of npm once for each user."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

SECONDS = 180


def sdist(package: str, folder: Path) -> Path:
    """Download and unpack the source of a package, skipping the test where no registry answers."""
    options = ["--no-deps", "--no-binary", package.split("==")[0], "--dest", str(folder)]
    _run([sys.executable, "-m", "pip", "download", "--quiet", *options, package], folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder


def debian(package: str, folder: Path) -> Path:
    """Download and unpack a package of Debian without installing it, skipping the test where there is none."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip(f"{package} is a package of Debian, and apt is not at hand")
    _run(["apt-get", "download", "-qq", package], folder)
    (archive,) = folder.glob("*.deb")
    _run(["dpkg-deb", "-x", str(archive), str(folder)], folder)
    return folder


def npm(package: str, version: str, wanted: Sequence[str]) -> Path:
    """Download a package of npm and keep those of its files whose paths begin so; skip the test where there is none.

    They are kept in VITRINE_TEST_DATA, by default below the user's cache.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    kept = Path(os.environ.get("VITRINE_TEST_DATA") or Path(cache) / "vitrine-tests")
    folder = kept / f"{package}-{version}"
    if folder.is_dir():
        return folder
    if not shutil.which("npm"):
        pytest.skip(f"{package} is a package of npm, and npm is not at hand")
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as name:
        scratch = Path(name)
        _run(["npm", "pack", "--silent", f"{package}@{version}"], scratch)
        (archive,) = scratch.glob("*.tgz")
        with tarfile.open(archive) as files:
            starts = tuple(f"package/{each}" for each in wanted)
            members = [each for each in files.getmembers() if each.name.startswith(starts)]
            files.extractall(scratch, members, filter="data")
        # Another run may have been faster.
        if not folder.is_dir():
            (scratch / "package").rename(folder)
    return folder


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"{command[-1]} cannot be downloaded: {str(reason).strip().splitlines()[-1]}")
