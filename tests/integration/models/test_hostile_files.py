"""Thousands of odd and hostile files: none escapes as an error of ours, and no sound one is refused."""

import json
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import PIL
import pytest

from tests.support.corpora import debian, sdist

READ = {"JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF"}
"""Formats of Pillow that are read; a file that Pillow reads as one of them is sound."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path)


def outcomes(paths: list[Path]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Read the files in a child, and in another one after a file that it died of."""
    while paths:
        command = [sys.executable, "-m", "tests.support.image_reader"]
        names = "".join(f"{path}\n" for path in paths)
        child = subprocess.run(
            command, input=names, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        answers = [json.loads(line) for line in child.stdout.splitlines()]
        yield from zip(paths, answers, strict=False)
        if len(answers) < len(paths):
            yield (
                paths[len(answers)],
                {"fate": "escaped", "reason": f"the child ended with {child.returncode}"},
            )
        paths = paths[len(answers) + 1 :]


def check(folder: Path, least: int) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    found = list(outcomes(paths))
    refused = [(path.relative_to(folder), answer) for path, answer in found if answer["fate"] == "refused"]
    for path, answer in refused:
        print(f"{path}: {answer['reason']}")
    print(Counter(answer["fate"] for _, answer in found))
    assert len(found) >= least
    assert [(path, answer["reason"]) for path, answer in found if answer["fate"] == "escaped"] == []
    assert [path for path, answer in refused if answer["alone"] in READ] == []


def test_pillows_own_test_images(folder: Path) -> None:
    (source,) = sdist(f"pillow=={PIL.__version__}", folder).glob("pillow-*/Tests/images")
    check(source, least=700)


def test_the_test_images_of_gdk_pixbuf() -> None:
    check(debian("gdk-pixbuf-tests") / "usr/libexec/installed-tests", least=400)


def test_the_suite_of_png_files(folder: Path) -> None:
    (module,) = sdist("pypng", folder).glob("pypng-*/code/pngsuite.py")
    files = folder / "files"
    files.mkdir()
    for name, data in runpy.run_path(str(module), run_name="pngsuite")["png"].items():
        (files / f"{name}.png").write_bytes(data)
    check(files, least=28)
