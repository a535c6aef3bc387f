"""Image files are recognized by their content, held to the limits, and decoded upright on white."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from core.errors import InputTooLarge, InvalidImage
from models.images import ImageFacts, ImageLimits, inspect_image
from tests.support.image_files import decode_image, file, png_bomb, png_file, rotated_jpeg, smooth

LIMITS = ImageLimits()
UNDO = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
MODERN = ["PNG", "WEBP", "AVIF", "HEIF", "TIFF"]


def color_at(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    assert image.mode == "RGB"
    return tuple(np.asarray(image)[y, x].tolist())


def halves(width: int, height: int) -> Image.Image:
    """Red above, blue below."""
    image = Image.new("RGB", (width, height), "red")
    image.paste((0, 0, 255), (0, height // 2, width, height))
    return image


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [(kind, f"image/{kind.lower()}") for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")]
    + [("HEIF", "image/heic")],
)
def test_the_media_type_comes_from_the_content(kind: str, media_type: str) -> None:
    assert inspect_image(file(smooth(300, 200), kind), LIMITS) == ImageFacts(media_type, 300, 200)


def test_the_images_of_a_phone_with_a_second_image_inside_are_jpeg() -> None:
    data = file(smooth(300, 200), "MPO", save_all=True, append_images=[smooth(300, 200)])
    assert inspect_image(data, LIMITS) == ImageFacts("image/jpeg", 300, 200)


@pytest.mark.parametrize(
    ("kind", "orientation"),
    [("JPEG", orientation) for orientation in range(1, 9)]
    + [(kind, turn) for kind in MODERN for turn in (3, 6)],
)
def test_the_orientation_of_a_camera_is_applied(kind: str, orientation: int) -> None:
    exif, upright = Image.Exif(), smooth(96, 64)
    exif[0x0112] = orientation
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(UNDO[orientation]))
    data = file(stored, kind, exif=exif.tobytes(), quality=95)
    decoded, facts = decode_image(data, LIMITS), inspect_image(data, LIMITS)
    assert decoded.size == (facts.width, facts.height) == upright.size
    difference = np.abs(np.asarray(decoded, dtype=int) - np.asarray(upright, dtype=int))
    assert difference.mean() < 4


@pytest.mark.parametrize("kind", MODERN)
def test_transparency_becomes_white(kind: str) -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (20, 0, 40, 40))
    decoded = decode_image(file(image, kind, **({"lossless": True} if kind == "WEBP" else {})), LIMITS)
    assert np.allclose(color_at(decoded, 5, 20), (255, 255, 255), atol=2 * (kind == "HEIF"))
    assert np.allclose(color_at(decoded, 34, 20), (255, 0, 0), atol=6)


@pytest.mark.parametrize(
    ("mode", "color", "shown"), [("RGBA", (0, 0, 0, 128), 127), ("LA", (90, 0), 255), ("LA", (90, 255), 90)]
)
def test_pixels_are_mixed_with_white_by_their_transparency(
    mode: str, color: tuple[int, ...], shown: int
) -> None:
    assert color_at(decode_image(file(Image.new(mode, (4, 4), color)), LIMITS), 1, 1) == (shown,) * 3


def test_a_palette_keeps_its_colors_and_its_transparency() -> None:
    image = halves(10, 10).quantize(4)
    assert color_at(decode_image(file(image), LIMITS), 0, 0) == (255, 0, 0)
    decoded = decode_image(file(image, "PNG", transparency=image.getpixel((0, 0))), LIMITS)
    assert color_at(decoded, 0, 0) == (255, 255, 255)
    assert color_at(decoded, 0, 9) == (0, 0, 255)


@pytest.mark.parametrize(
    ("ramp", "kind"),
    [
        (np.linspace(0, 65_535, 256).astype(np.uint16), "PNG"),
        (np.linspace(0, 65_535, 256).astype(np.uint16), "TIFF"),
        (np.linspace(0, 1, 256, dtype=np.float32), "TIFF"),
    ],
    ids=["png", "tiff", "float"],
)
def test_deep_gray_is_scaled_not_clipped(ramp: np.ndarray, kind: str) -> None:
    rows = ramp[None].repeat(8, axis=0)
    if kind == "TIFF" and rows.dtype == np.float32:
        rows[0, 0] = np.nan
    row = np.asarray(decode_image(file(Image.fromarray(rows), kind), LIMITS))[4, :, 0]
    assert np.abs(row.astype(int) - np.arange(256)).max() <= 1


def test_sixteen_bit_color_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16)
    pixels = np.stack([ramp, ramp[::-1], np.full_like(ramp, 40_000)], axis=-1)[None].repeat(4, axis=0)
    header = struct.pack(">IIBBBBB", 256, 4, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    decoded = np.asarray(decode_image(png_file(header, zlib.compress(rows)), LIMITS), dtype=int)
    assert np.abs(decoded - pixels / 257).max() <= 1


def test_one_bit_becomes_black_and_white() -> None:
    bits = halves(16, 16).convert("L").point(lambda v: 255 * (v > 50), mode="1")
    decoded = decode_image(file(bits), LIMITS)
    assert color_at(decoded, 0, 0) == (255, 255, 255)
    assert color_at(decoded, 0, 15) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_shows_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "lime", "blue")]
    data = file(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.allclose(color_at(decode_image(data, LIMITS), 16, 16), (255, 0, 0), atol=6)


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "HEIF"])
def test_a_modern_format_looks_like_its_original(kind: str) -> None:
    original = smooth(320, 240, 3)
    decoded = np.asarray(decode_image(file(original, kind, quality=90), LIMITS), dtype=int)
    assert np.abs(decoded - np.asarray(original, dtype=int)).mean() < 6


def test_a_large_jpeg_is_reduced_to_no_less_than_three_times_the_target() -> None:
    data = file(smooth(2000, 1500), "JPEG")
    assert decode_image(data, LIMITS, target=224).size == (1000, 750)
    assert decode_image(data, LIMITS, target=120).size == (500, 375)
    assert decode_image(data, LIMITS, target=600).size == (2000, 1500)
    assert decode_image(data, LIMITS).size == (2000, 1500)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "HEIF"])
def test_the_smallest_image_is_fine(kind: str) -> None:
    data = file(smooth(1, 1), kind)
    assert decode_image(data, LIMITS, target=224).size == (1, 1)
    assert (inspect_image(data, LIMITS).width, inspect_image(data, LIMITS).height) == (1, 1)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
def test_a_jpeg_that_is_cut_off_is_named_so(share: float, progressive: bool) -> None:
    whole = file(smooth(800, 600), "JPEG", progressive=progressive)
    with pytest.raises(InvalidImage, match="truncated"):
        inspect_image(whole[: int(len(whole) * share)], LIMITS)


@pytest.mark.parametrize("kind", [*MODERN, "GIF", "BMP"])
def test_a_file_of_another_format_that_is_cut_off_is_refused(kind: str) -> None:
    whole = file(smooth(400, 300), kind)
    for read in (inspect_image, decode_image):
        with pytest.raises(InvalidImage):
            read(whole[: len(whole) // 2], LIMITS)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "0 bytes"),
        (b"Dear shop,\nplease find my image attached.\n", r"looks like text.*JPEG, PNG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\xfa\x1f\x41\x91\x08\x06\x01\x00", "JPEG XL"),
        (b'<svg xmlns="a"/>', "SVG"),
        (b"%PDF-1.7", "PDF"),
        (file(smooth(200, 200))[:60] + bytes(range(256)) * 4, "damaged"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, named: str) -> None:
    with pytest.raises(InvalidImage, match=named):
        inspect_image(data, LIMITS)


def test_a_bomb_is_refused_by_its_header() -> None:
    bomb = png_bomb(20_000)
    assert len(bomb) < 1000
    for read in (inspect_image, decode_image):
        with pytest.raises(InputTooLarge, match=r"20000 x 20000 .* limit is 64,000,000"):
            read(bomb, LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "HEIF"])
def test_a_side_beyond_its_limit_is_refused(kind: str) -> None:
    with pytest.raises(InputTooLarge, match="limit is 100 pixels a side"):
        inspect_image(file(smooth(101, 1), kind), ImageLimits(max_side=100))


def test_too_many_bytes_are_refused_before_they_are_looked_at() -> None:
    with pytest.raises(InputTooLarge, match="2,000 bytes; the limit is 1,000"):
        inspect_image(b"x" * 2000, ImageLimits(max_bytes=1000))


def test_damaged_metadata_does_not_refuse_an_image() -> None:
    data = bytearray(rotated_jpeg(smooth(300, 200), 6))
    at = data.index(b"Exif\0\0") + 6
    data[at : at + 8] = b"\xff" * 8
    assert inspect_image(bytes(data), LIMITS).width == 300
