"""Public files to test with, downloaded for one run; nothing of them is kept."""

import shutil
import subprocess
import sys
import tarfile
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


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"{command[-1]} cannot be downloaded: {str(reason).strip().splitlines()[-1]}")
