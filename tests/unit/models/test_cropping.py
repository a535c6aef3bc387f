"""A box names the same part of an image however the file stores it and however far it is reduced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.errors import InputTooLarge
from core.types import Box, Cropped
from models.config import EncoderConfig
from models.encoder import load_encoder
from models.images import Decoded, ImageLimits, crop
from tests.support.image_files import decode_image, file, rotated_jpeg, smooth

LIMITS = ImageLimits()
UNDO = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
shares = st.floats(0, 1, exclude_max=True)


def colors(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((8, 8), Image.Resampling.BOX), dtype=int)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("target", [None, 20])
def test_the_box_is_of_the_upright_image(orientation: int, target: int | None) -> None:
    upright = smooth(960, 640)
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(UNDO[orientation]))
    box = Box(0.5, 0.25, 0.25, 0.5)
    part = decode_image(rotated_jpeg(stored, orientation), LIMITS, target, box)
    expected = upright.crop((480, 160, 720, 480))
    assert part.width / part.height == pytest.approx(240 / 320, abs=0.02)
    assert np.abs(colors(part) - colors(expected)).mean() < 4


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_reduced_image_leaves_three_times_the_target_in_the_box(orientation: int) -> None:
    data = rotated_jpeg(smooth(2000, 1600), orientation)
    whole = decode_image(data, LIMITS, 66)
    assert min(whole.size) == 200
    for box in (Box(0.1, 0.1, 0.5, 0.5), Box(0, 0, 0.25, 1), Box(0.5, 0.7, 1 / 3, 0.3)):
        part = decode_image(data, LIMITS, 66, box)
        assert min(part.size) >= 3 * 66 - 1


def test_a_box_around_everything_changes_nothing() -> None:
    data = file(smooth(331, 97))
    part, whole = (decode_image(data, LIMITS, 64, box) for box in (Box(0, 0, 1, 1), None))
    assert np.array_equal(np.asarray(part), np.asarray(whole))


@given(x=shares, y=shares, width=st.floats(5e-324, 1), height=st.floats(5e-324, 1))
def test_every_box_with_an_area_leaves_at_least_a_pixel(
    x: float, y: float, width: float, height: float
) -> None:
    box = Box(x, y, min(width, 1 - x), min(height, 1 - y))
    for size in ((1, 1), (37, 5)):
        part = crop(Decoded(Image.new("RGB", size), *size), box)
        assert 1 <= part.width <= size[0]
        assert 1 <= part.height <= size[1]
    assert min(decode_image(file(Image.new("RGB", (40, 30)), "JPEG"), LIMITS, 8, box).size) >= 1


def test_limits_hold_for_the_whole_image() -> None:
    with pytest.raises(InputTooLarge):
        decode_image(file(smooth(100, 100)), ImageLimits(max_side=50), None, Box(0, 0, 0.1, 0.1))


def test_an_encoder_sees_only_what_is_in_the_box() -> None:
    encoder = load_encoder(EncoderConfig(name="fake", family="fake"))
    image = Image.new("RGB", (80, 40), "red")
    image.paste((0, 0, 255), (40, 0, 80, 40))
    blue = encoder.decode(file(Image.new("RGB", (40, 40), "blue")))
    part = encoder.decode(Cropped(file(image), Box(0.5, 0, 0.5, 1)))
    assert np.array_equal(part, blue)
