"""Public files to test with, from the package managers at hand. Tests that need what cannot be had are skipped.

Packages of npm and of Debian are kept in VITRINE_TEST_DATA, by default below the user's cache, so each is downloaded
once.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

SECONDS = 180
EMOJI = "16.0.0"
FLUENT = "1.1.0"
PHOTOGRAPHS = ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "mate-backgrounds")


def sdist(package: str, folder: Path) -> Path:
    """Download and unpack the source of a package, skipping the test where no registry answers."""
    options = ["--no-deps", "--no-binary", package.split("==")[0], "--dest", str(folder)]
    _run([sys.executable, "-m", "pip", "download", "--quiet", *options, package], folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder


def debian(package: str, endings: Sequence[str] = ("",)) -> Path:
    """Download a package of Debian without installing it, and keep those of its files whose names end so.

    A release of Debian has one version of a package, so none is pinned.
    """

    def unpack(scratch: Path) -> None:
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            pytest.skip(f"{package} is a package of Debian, and apt is not at hand")
        _run(["apt-get", "download", "-qq", package], scratch)
        (archive,) = scratch.glob("*.deb")
        _run(["dpkg-deb", "--fsys-tarfile", archive.name], scratch, scratch / "files.tar")
        _extract(scratch / "files.tar", scratch / "package", lambda name: name.endswith(tuple(endings)))

    return _kept(f"debian-{package}", unpack)


def npm(package: str, version: str, beginnings: Sequence[str]) -> Path:
    """Download a package of npm and keep those of its files whose paths begin so."""

    def unpack(scratch: Path) -> None:
        if not shutil.which("npm"):
            pytest.skip(f"{package} is a package of npm, and npm is not at hand")
        _run(["npm", "pack", "--silent", f"{package}@{version}"], scratch)
        (archive,) = scratch.glob("*.tgz")
        starts = tuple(f"package/{each}" for each in beginnings)
        _extract(archive, scratch, lambda name: name.startswith(starts))

    return _kept(f"npm-{package.replace('/', '-')}-{version}", unpack)


def google_emoji() -> Path:
    """Return the folder of Noto's emoji, with their names and categories in `emoji.json` (Apache-2.0)."""
    return npm("emoji-datasource-google", EMOJI, ["emoji.json", "img/google/64/", "LICENSE"])


def twitter_emoji() -> Path:
    """Return the folder of Twemoji (CC-BY-4.0)."""
    return npm("emoji-datasource-twitter", EMOJI, ["img/twitter/64/", "LICENSE"])


def fluent_emoji() -> Path:
    """Return the folder of Microsoft's Fluent emoji in 3D (MIT)."""
    return npm("@lobehub/fluent-emoji-3d", FLUENT, ["assets/", "package.json"])


def fashion_mnist() -> Path:
    """Return the folder of Fashion-MNIST, 70,000 labeled garments of 28 × 28 pixels (MIT)."""
    return debian("dataset-fashion-mnist", [".gz"]) / "usr/share/datasets/fashion-mnist"


def stamps() -> Path:
    """Return the folder of the stamps of Tux Paint, cut-outs with titles in many languages (GPL-2)."""
    return debian("tuxpaint-stamps-default", [".png", ".txt"]) / "usr/share/tuxpaint/stamps"


def photographs(package: str) -> list[Path]:
    """List the photographs of a package of wallpapers."""
    return sorted(debian(package, [".jpg", "/copyright"]).rglob("*.jpg"))


def _kept(name: str, unpack: Callable[[Path], None]) -> Path:
    """Return the folder of this name; where there is none, `unpack` makes it as `package` in a scratch folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = Path(os.environ.get("VITRINE_TEST_DATA") or Path(cache) / "vitrine-tests")
    folder = home / name
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix="unpacked-") as scratch:
            unpack(Path(scratch))
            try:
                (Path(scratch) / "package").rename(folder)
            except OSError:
                # Another run may have been faster.
                if not folder.is_dir():
                    raise
    return folder


def _extract(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    with tarfile.open(archive) as files:
        members = [each for each in files if each.isfile() and wanted(each.name)]
        files.extractall(folder, members, filter="data")


def _run(command: list[str], folder: Path, output: Path | None = None) -> None:
    """Run the command in the folder, its output to a file where one is named; skip the test where it fails."""
    try:
        with (output or Path(os.devnull)).open("wb") as file:
            subprocess.run(
                command, cwd=folder, check=True, stdout=file, stderr=subprocess.PIPE, timeout=SECONDS
            )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").split("\n")
        reason = next((line for line in reversed(said) if line.strip()), str(error))
        pytest.skip(f"{command[-1]} cannot be downloaded: {reason}")
