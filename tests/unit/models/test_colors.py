"""Pixels are sRGB on white, whatever color space the file is in."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from models.images import ImageLimits
from tests.support.icc_profiles import D50, gamma, of_primaries, profile
from tests.support.image_files import decode_image, file, smooth


def of_inks() -> bytes:
    """A press on which every ink alone is the same gray: colors of their own show that nothing was converted."""
    light = [255 * (1 - k) * (3 - c - m - y) // 3 for c, m, y, k in np.ndindex(2, 2, 2, 2)]
    straight, identity = bytes(range(256)), (65_536, 0, 0, 0) * 2 + (65_536,)
    grid = b"".join(bytes((lightness, 128, 128)) for lightness in light)
    table = b"mft1\0\0\0\0\4\3\2\0" + struct.pack(">9i", *identity) + straight * 4 + grid + straight * 3
    return profile(b"CMYK", A2B0=table + bytes(-len(table) % 4))


P3 = of_primaries(2.2, (0.5151, 0.2412, -0.0011), (0.292, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE = of_primaries(2.2, (0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
PROPHOTO = of_primaries(1.8, (0.7977, 0.288, 0), (0.1352, 0.7119, 0), (0.0313, 0.0001, 0.8249))
LINEAR_GRAY = profile(b"GRAY", kTRC=gamma(1))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(image: Image.Image, kind: str = "PNG", **options: Any) -> np.ndarray:
    return np.asarray(decode_image(file(image, kind, **options), ImageLimits()), dtype=int)


@pytest.mark.parametrize("space", [P3, ADOBE, PROPHOTO], ids=["Display P3", "Adobe RGB", "ProPhoto"])
def test_wide_colors_are_those_of_littlecms(space: bytes) -> None:
    image = smooth(60, 40)
    source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(space)), ImageCms.createProfile("sRGB")
    expected = np.asarray(ImageCms.profileToProfile(image, source, srgb), dtype=int)
    found = pixels(image, icc_profile=space)
    assert np.abs(found - expected).max() <= 2
    assert np.abs(found - np.asarray(image, dtype=int)).max() > 20


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "HEIF", "TIFF"])
def test_the_profile_of_every_format_counts(kind: str) -> None:
    red = Image.new("RGB", (640, 480), (200, 80, 60))
    assert np.abs(pixels(red, kind, icc_profile=P3) - pixels(red, icc_profile=P3)).max() <= 4
    reduced = decode_image(file(red, kind, icc_profile=P3), ImageLimits(), target=20)
    assert np.abs(np.asarray(reduced, dtype=int)[9, 9] - pixels(red, icc_profile=P3)[9, 9]).max() <= 4


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_gray_is_converted_by_its_profile(mode: str) -> None:
    gray = Image.new("L", (4, 4), 55).convert(mode)
    assert np.abs(pixels(gray, icc_profile=LINEAR_GRAY) - 128).max() <= 1
    # Cameras write gray files with a profile for RGB.
    assert (
        np.abs(pixels(gray, icc_profile=of_primaries(1, *[(D50[0] / 3, 1 / 3, D50[2] / 3)] * 3)) - 128).max()
        <= 1
    )


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_inks_are_converted_by_their_profile_or_as_they_come(kind: str) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.allclose(pixels(cyan, kind, icc_profile=of_inks()), 162, atol=3)
    assert np.allclose(pixels(cyan, kind), (0, 255, 255), atol=3)


def test_lab_is_converted() -> None:
    assert np.allclose(pixels(Image.new("LAB", (4, 4), (128, 128, 128)), "TIFF"), 119, atol=2)


def test_what_is_transparent_is_white_in_every_color_space() -> None:
    image = Image.new("RGBA", (2, 1), (200, 80, 60, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    clear, solid = pixels(image, icc_profile=P3)[0]
    assert clear.tolist() == [255, 255, 255]
    assert np.array_equal(solid, pixels(image.convert("RGB"), icc_profile=P3)[0, 1])


@pytest.mark.parametrize(
    "ignored",
    [
        b"",
        b"no profile",
        P3[:200],
        P3[:16] + b"\xff\xfe\xfd\xfc" + P3[20:],
        SRGB,
        LINEAR_GRAY,
        of_inks(),
        P3 + bytes(5 * 2**20),
    ],
    ids=["empty", "damaged", "cut off", "of no space", "sRGB", "of gray", "of inks", "too large"],
)
def test_a_profile_that_is_of_no_use_is_ignored(ignored: bytes) -> None:
    image = smooth(30, 20)
    assert np.array_equal(pixels(image, "TIFF", icc_profile=ignored), np.asarray(image))


def test_a_first_frame_that_is_smaller_than_its_canvas_lies_on_white() -> None:
    data = bytearray(file(Image.new("RGB", (10, 5), "red"), "GIF"))
    data[6:10] = struct.pack("<2H", 40, 30)
    frame = data.index(b",\0\0\0\0\x0a\0\x05\0")
    data[frame + 1 : frame + 5] = struct.pack("<2H", 7, 3)
    decoded = decode_image(bytes(data), ImageLimits())
    assert decoded.size == (40, 30)
    is_red = (np.asarray(decoded) == (255, 0, 0)).all(axis=2)
    assert is_red[3:8, 7:17].all()
    assert (np.asarray(decoded)[~is_red] == 255).all()
    assert is_red.sum() == 50
