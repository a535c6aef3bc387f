import subprocess
import sys

import pytest
from PIL import Image

from core.errors import InputTooLarge, InvalidImage
from models.images import ImageFacts, ImageLimits, inspect_image
from tests.support.image_files import decode_image, file, png_bomb, rotated_jpeg, smooth

LIMITS = ImageLimits()
IMAGE = smooth(300, 200)


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("AVIF", "image/avif"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
    ],
)
def test_the_media_type_comes_from_the_content(kind: str, media_type: str) -> None:
    assert inspect_image(file(IMAGE, kind), LIMITS) == ImageFacts(media_type, 300, 200)


def test_the_images_of_a_phone_with_a_second_image_inside_are_jpeg() -> None:
    data = file(IMAGE, "MPO", save_all=True, append_images=[IMAGE])
    assert inspect_image(data, LIMITS) == ImageFacts("image/jpeg", 300, 200)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_size_is_that_of_the_upright_image(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = inspect_image(file(IMAGE, kind, exif=exif), LIMITS)
    assert (facts.width, facts.height) == (200, 300)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
def test_a_jpeg_that_is_cut_off_is_named_so(share: float, progressive: bool) -> None:
    whole = file(smooth(800, 600), "JPEG", progressive=progressive)
    with pytest.raises(InvalidImage, match="truncated"):
        inspect_image(whole[: int(len(whole) * share)], LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_a_file_of_another_format_that_is_cut_off_is_refused(kind: str) -> None:
    whole = file(smooth(400, 300), kind)
    for read in (inspect_image, decode_image):
        with pytest.raises(InvalidImage):
            read(whole[: len(whole) // 2], LIMITS)


def test_an_empty_body_is_named_so() -> None:
    with pytest.raises(InvalidImage, match="0 bytes"):
        inspect_image(b"", LIMITS)


def test_a_text_file_is_named_so() -> None:
    with pytest.raises(InvalidImage, match=r"looks like text.*JPEG, PNG"):
        inspect_image(b"Dear shop,\nplease find my image attached.\n", LIMITS)


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"), (b'<svg xmlns="a"/>', "SVG"), (b"%PDF-1.7", "PDF")],
)
def test_a_format_that_is_not_read_is_named(data: bytes, name: str) -> None:
    with pytest.raises(InvalidImage, match=name):
        inspect_image(data, LIMITS)


def test_noise_after_an_image_header_is_refused() -> None:
    whole = bytearray(file(smooth(200, 200), "PNG"))
    whole[60:] = bytes(range(256)) * 4
    with pytest.raises(InvalidImage):
        inspect_image(bytes(whole), LIMITS)


def test_a_bomb_is_refused_by_its_header() -> None:
    bomb = png_bomb(20_000)
    assert len(bomb) < 1000
    for read in (inspect_image, decode_image):
        with pytest.raises(InputTooLarge, match=r"20000 x 20000 .* limit is 64,000,000"):
            read(bomb, LIMITS)


def test_a_side_beyond_its_limit_is_refused() -> None:
    with pytest.raises(InputTooLarge, match="limit is 100 pixels a side"):
        inspect_image(file(smooth(101, 1)), ImageLimits(max_side=100))


def test_too_many_bytes_are_refused_before_they_are_looked_at() -> None:
    with pytest.raises(InputTooLarge, match="2,000 bytes; the limit is 1,000"):
        inspect_image(b"x" * 2000, ImageLimits(max_bytes=1000))


def test_the_smallest_image_is_fine() -> None:
    assert inspect_image(file(smooth(1, 1)), LIMITS) == ImageFacts("image/png", 1, 1)


def test_damaged_metadata_does_not_refuse_an_image() -> None:
    data = bytearray(rotated_jpeg(IMAGE, 6))
    at = data.index(b"Exif\0\0") + 6
    data[at : at + 8] = b"\xff" * 8
    assert inspect_image(bytes(data), LIMITS).width == 300


def test_reading_images_loads_no_model_library() -> None:
    probe = "import sys, models.images, models.config; print('torch' in sys.modules, 'ray' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]
