"""`vitrine try` on a folder of real formats: it answers, ends by Ctrl-C, and continues from what is there."""

import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support.image_files import file, rotated_jpeg
from tests.support.try_command import TryCommand, trying
from vitrine.cli.service import Exit

SIZE = (320, 240)
KINDS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF")
COUNT = 30


def drawing(number: int) -> Image.Image:
    """Draw large shapes with sharp edges, which the model tells apart by far more than formats change."""
    random = np.random.default_rng(number)

    def color() -> tuple[int, ...]:
        return tuple(random.integers(0, 256, 3).tolist())

    image = Image.new("RGB", SIZE, color())
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        left, top = random.integers(0, (260, 180)).tolist()
        width, height = random.integers(30, 140, 2).tolist()
        shape = (draw.ellipse, draw.rectangle)[random.integers(2)]
        shape((left, top, left + width, top + height), fill=color())
    return image


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    (folder / "sea/2023").mkdir(parents=True)
    for number in range(COUNT):
        kind = KINDS[number % len(KINDS)]
        place = folder / "sea/2023" if number < 10 else folder
        drawn = drawing(number)
        data = rotated_jpeg(drawn, 6) if kind == "JPEG" else file(drawn, kind)
        (place / f"image-{number:02d}.{kind.lower()}").write_bytes(data)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_bytes(b"no image")
    return folder


def search(command: TryCommand, **call: Any) -> list[str]:
    answer = httpx.post(f"{command.base_url}/v1/search", timeout=60, **call)
    assert answer.status_code == 200, answer.text
    return [each["product_id"] for each in answer.json()["results"]]


def by_image(command: TryCommand, number: int) -> str:
    (found,) = search(
        command,
        files={"image": ("a.jpg", file(drawing(number), "JPEG", quality=60))},
        data={"request": '{"limit": 1}'},
    )
    return found


def test_a_folder_is_searched_and_continued_wherever_it_was_interrupted(album: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with TryCommand(album, data) as command:
        command.wait_until("data and log are kept in")
        command.interrupt()
        assert command.returncode == Exit.INTERRUPTED, command.output()
        assert "the same command continues" in command.output()
    with trying(album, data) as command:
        output = command.output()
        # What was read before the interruption may be unchanged.
        assert re.search(rf"{COUNT} products read: \d+ new, 0 changed, \d+ unchanged, 0 removed", output)
        assert f"{COUNT} images indexed" in output
        assert "2 were left out:\n  broken.jpg: " in output
        assert "  notes.txt: .txt is not the ending of an image" in output
        assert by_image(command, 11) == "image-11.avif"
        assert by_image(command, 1) == "sea:2023:image-01.png"
        assert search(command, json={"query": "sea 04", "limit": 1}) == ["sea:2023:image-04.heif"]
        filtered = {"query": "image", "filter": {"folder": "sea/2023"}, "limit": 100}
        assert len(search(command, json=filtered)) == 10
        with TryCommand(album, data) as second:
            assert second.wait(timeout=120) == Exit.USAGE, second.output()
            assert "is in use by another run" in second.output()
        command.interrupt()
        assert command.returncode == Exit.OK, command.output()
    (album / "image-29.gif").unlink()
    shutil.copy(album / "sea/2023/image-01.png", album / "new.png")
    with trying(album, data) as command:
        assert (
            f"{COUNT} products read: 1 new, 0 changed, {COUNT - 1} unchanged, 1 removed" in command.output()
        )
        assert by_image(command, 1) in ("new.png", "sea:2023:image-01.png")
