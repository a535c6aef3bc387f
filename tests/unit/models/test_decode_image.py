import numpy as np
import pytest
from PIL import Image

from models.images import ImageLimits
from tests.support.image_files import decode_image, file, rotated_jpeg, smooth

LIMITS = ImageLimits()


def color_at(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    assert image.mode == "RGB"
    return tuple(np.asarray(image)[y, x].tolist())


def halves(width: int, height: int) -> Image.Image:
    """Red above, blue below."""
    image = Image.new("RGB", (width, height), "red")
    image.paste((0, 0, 255), (0, height // 2, width, height))
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_applied(orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    upright = smooth(96, 64)
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    decoded = decode_image(rotated_jpeg(stored, orientation), LIMITS)
    assert decoded.size == upright.size
    difference = np.abs(np.asarray(decoded, dtype=int) - np.asarray(upright, dtype=int))
    assert difference.mean() < 3


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_the_orientation_is_applied_in_every_format_that_holds_one(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = smooth(96, 64)
    stored = upright.transpose(Image.Transpose({3: 3, 6: 2}[orientation]))
    decoded = decode_image(file(stored, kind, exif=exif), LIMITS)
    assert decoded.size == upright.size
    difference = np.abs(np.asarray(decoded, dtype=int) - np.asarray(upright, dtype=int))
    assert difference.mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_transparency_becomes_white(kind: str) -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (20, 0, 40, 40))
    decoded = decode_image(file(image, kind, **({"lossless": True} if kind == "WEBP" else {})), LIMITS)
    assert color_at(decoded, 5, 20) == (255, 255, 255)
    assert np.allclose(color_at(decoded, 34, 20), (255, 0, 0), atol=6)


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    decoded = decode_image(file(Image.new("RGBA", (4, 4), (0, 0, 0, 128))), LIMITS)
    assert color_at(decoded, 1, 1) == (127, 127, 127)


def test_gray_with_transparency_is_flattened_on_white() -> None:
    decoded = decode_image(file(Image.new("LA", (4, 4), (90, 0))), LIMITS)
    assert color_at(decoded, 1, 1) == (255, 255, 255)


def test_a_palette_with_a_transparent_color_is_flattened_on_white() -> None:
    image = halves(10, 10).quantize(4)
    clear = image.getpixel((0, 0))
    decoded = decode_image(file(image, "PNG", transparency=clear), LIMITS)
    assert color_at(decoded, 0, 0) == (255, 255, 255)
    assert color_at(decoded, 0, 9) == (0, 0, 255)


def test_a_palette_keeps_its_colors() -> None:
    decoded = decode_image(file(halves(10, 10).quantize(4)), LIMITS)
    assert color_at(decoded, 0, 0) == (255, 0, 0)


def test_a_cmyk_jpeg_keeps_its_colors() -> None:
    decoded = decode_image(file(halves(64, 64).convert("CMYK"), "JPEG", quality=95), LIMITS)
    assert np.allclose(color_at(decoded, 20, 5), (255, 0, 0), atol=12)
    assert np.allclose(color_at(decoded, 20, 60), (0, 0, 255), atol=12)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16)[None].repeat(8, axis=0)
    row = np.asarray(decode_image(file(Image.fromarray(ramp), kind), LIMITS))[4, :, 0]
    assert np.abs(row.astype(int) - np.arange(256)).max() <= 1


def test_float_gray_between_nought_and_one_fills_the_range() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(4, axis=0)
    ramp[0, 0] = np.nan
    row = np.asarray(decode_image(file(Image.fromarray(ramp), "TIFF"), LIMITS))[2, :, 0]
    assert np.abs(row.astype(int) - np.arange(256)).max() <= 1


def test_one_bit_becomes_black_and_white() -> None:
    decoded = decode_image(
        file(halves(16, 16).convert("L").point(lambda v: 255 * (v > 50), mode="1")), LIMITS
    )
    assert color_at(decoded, 0, 0) == (255, 255, 255)
    assert color_at(decoded, 0, 15) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_shows_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "lime", "blue")]
    data = file(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.allclose(color_at(decode_image(data, LIMITS), 16, 16), (255, 0, 0), atol=6)


def test_a_large_jpeg_is_reduced_to_no_less_than_three_times_the_target() -> None:
    data = file(smooth(2000, 1500), "JPEG")
    assert decode_image(data, LIMITS, target=224).size == (1000, 750)
    assert decode_image(data, LIMITS, target=120).size == (500, 375)
    assert decode_image(data, LIMITS, target=600).size == (2000, 1500)
    assert decode_image(data, LIMITS).size == (2000, 1500)


def test_a_reduced_jpeg_looks_like_the_full_one() -> None:
    data = file(smooth(1200, 900), "JPEG", quality=95)
    full = decode_image(data, LIMITS).resize((200, 150), Image.Resampling.BICUBIC)
    reduced = decode_image(data, LIMITS, target=200).resize((200, 150), Image.Resampling.BICUBIC)
    a, b = (np.asarray(image, dtype=float).ravel() for image in (full, reduced))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999


def test_the_smallest_image_survives_a_target() -> None:
    assert decode_image(file(smooth(1, 1), "JPEG"), LIMITS, target=224).size == (1, 1)
