"""JPEGs of which nothing but the pixels counts are read by torchvision, to Pillow's pixels; others by Pillow."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageCms

from core.errors import InvalidImage
from core.types import Box
from models.images import ImageLimits, decoding
from models.preprocessing import read_jpeg
from tests.support.icc_profiles import of_primaries
from tests.support.image_files import ODD_SIZES, file, rotated_jpeg, smooth

LIMITS = ImageLimits()


class Counted:
    """Reads JPEGs, and remembers those that it could read."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self, data: bytes) -> NDArray[np.uint8]:
        pixels = read_jpeg(data)
        self.read += 1
        return pixels


def both(data: bytes, target: int | None = 32, box: Box | None = None) -> tuple[int, NDArray[np.uint8]]:
    """Decode with and without the reader; returns how many files it read, and the pixels, which must be equal."""
    reader = Counted()
    with decoding(data, LIMITS, target, box) as plain:
        expected, span = np.array(plain.image), (plain.width, plain.height)
    with decoding_again(data, target, box, reader) as read:
        pixels = np.asarray(read.image) if read.pixels is None else read.pixels
        assert np.array_equal(pixels, expected)
        assert (read.width, read.height) == span
        return reader.read, pixels


def decoding_again(data: bytes, target: int | None, box: Box | None, reader: Counted) -> Any:
    return decoding(data, LIMITS, target, box, read_jpeg=reader)


def jpeg(size: tuple[int, int] = (90, 60), **options: Any) -> bytes:
    return file(smooth(*size), "JPEG", **options)


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_the_pixels_are_those_of_pillow(size: tuple[int, int], subsampling: str) -> None:
    assert both(jpeg(size, subsampling=subsampling, quality=80), target=None)[0] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"optimize": True, "quality": 30},
        {"restart_marker_rows": 1},
        {"keep_rgb": True, "subsampling": "4:4:4"},
        {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
        {"comment": b"from a shop"},
    ],
)
def test_all_kinds_of_plain_files_are_read(options: dict[str, Any]) -> None:
    assert both(jpeg(**options))[0] == 1


@pytest.mark.parametrize(
    ("data", "target", "box"),
    [
        (rotated_jpeg(smooth(90, 60), 6), 32, None),
        (rotated_jpeg(smooth(90, 60), 2), 32, None),
        (file(smooth(90, 60).convert("L"), "JPEG"), 32, None),
        (file(smooth(90, 60).convert("CMYK"), "JPEG"), 32, None),
        (file(smooth(90, 60), "PNG"), 32, None),
        (file(smooth(90, 60), "MPO", save_all=True, append_images=[smooth(90, 60)]), 32, None),
        (jpeg((800, 800)), 32, None),
        (jpeg(), 32, Box(0.25, 0.25, 0.5, 0.5)),
    ],
    ids=["turned", "mirrored", "gray", "CMYK", "PNG", "MPO", "reduced", "cut to a box"],
)
def test_where_more_than_the_pixels_counts_pillow_decodes(data: bytes, target: int, box: Box | None) -> None:
    assert both(data, target, box)[0] == 0


def test_an_orientation_that_changes_nothing_is_no_matter() -> None:
    assert both(rotated_jpeg(smooth(90, 60), 1))[0] == 1


def test_colors_of_another_profile_are_converted() -> None:
    swapped = of_primaries(2.2, (0.292, 0.6922, 0.0419), (0.5151, 0.2412, -0.0011), (0.1571, 0.0666, 0.7841))
    read, converted = both(jpeg(icc_profile=swapped))
    assert read == 0
    assert not np.array_equal(converted, both(jpeg())[1])


def test_a_file_that_lacks_its_end_marker_only_is_taken_as_before() -> None:
    assert both(jpeg()[:-2])[0] == 0


def test_a_file_with_bytes_after_its_end_is_read() -> None:
    assert both(jpeg() + b"0000000000000017")[0] == 1


def test_a_file_that_is_cut_off_is_refused_as_before() -> None:
    data = file(smooth(300, 200), "JPEG", quality=95)
    with pytest.raises(InvalidImage, match="truncated"), decoding_again(data[:-900], 64, None, Counted()):
        pass


def test_a_reader_that_fails_leaves_the_file_to_pillow() -> None:
    def never(_data: bytes) -> NDArray[np.uint8]:
        raise RuntimeError("built without libjpeg")

    with decoding(jpeg(), LIMITS, 32, read_jpeg=never) as decoded:
        assert decoded.pixels is None
        assert decoded.image.size == (90, 60)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_decode_as_with_pillow_or_are_refused(seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(file(smooth(200, 150, seed), "JPEG", quality=90))
    for at in random.integers(200, len(data), 3):
        data[at] = random.integers(256)

    def outcome(reader: Counted | None) -> object:
        try:
            with decoding(bytes(data), LIMITS, 64, read_jpeg=reader) as decoded:
                pixels = np.asarray(decoded.image) if decoded.pixels is None else decoded.pixels
                return pixels.tobytes()
        except InvalidImage as error:
            return error.message

    assert outcome(None) == outcome(Counted())
