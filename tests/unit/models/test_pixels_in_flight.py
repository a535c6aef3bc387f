"""All that decodes shares one bound on pixels, and gives them back whatever happens."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from traceback import walk_tb

import pytest
from PIL import Image

from core.errors import InvalidImage, Overloaded
from models.config import EncoderConfig
from models.fake import load
from models.images import ImageLimits, decoding, inspect_image
from tests.support.image_files import file, smooth

LIMITS = ImageLimits(max_pixels_in_flight=10_000)
LARGE, SMALL = file(smooth(100, 100)), file(smooth(10, 10))


def test_inspecting_waits_for_what_is_being_decoded() -> None:
    with decoding(LARGE, LIMITS), ThreadPoolExecutor(1) as pool, pytest.raises(Overloaded):
        pool.submit(inspect_image, SMALL, LIMITS, time.monotonic()).result()
    assert inspect_image(SMALL, LIMITS, time.monotonic()).width == 10


def test_an_encoder_shares_the_bound_with_everything_else_in_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("models.images.PATIENCE_S", 0.0)
    encoder = load(EncoderConfig(name="fake", family="fake", limits=LIMITS))
    with decoding(LARGE, LIMITS), ThreadPoolExecutor(1) as pool, pytest.raises(Overloaded):
        pool.submit(encoder.decode, SMALL).result()
    assert encoder.decode(SMALL).shape == (3, 16, 16)


def test_an_image_larger_than_the_bound_is_decoded_alone() -> None:
    assert inspect_image(file(smooth(101, 100)), LIMITS, time.monotonic()).width == 101


def test_damaged_files_give_their_pixels_back() -> None:
    for _ in range(3):
        with pytest.raises(InvalidImage):
            inspect_image(LARGE[:-600], LIMITS, time.monotonic())


@pytest.mark.parametrize("step", ["PIL.Image.open", "PIL.ImageFile.ImageFile.load"])
def test_where_memory_runs_out_the_image_is_not_blamed(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_args: object, **_options: object) -> None:
        raise MemoryError

    encoder = load(EncoderConfig(name="fake", family="fake", limits=LIMITS))
    with monkeypatch.context() as patch:
        patch.setattr(step, no_room)
        for read in (partial(inspect_image, limits=LIMITS), encoder.decode):
            with pytest.raises(Overloaded):
                read(SMALL)
    monkeypatch.setattr(encoder, "preprocess", no_room)
    with pytest.raises(Overloaded):
        encoder.decode(SMALL)


def test_an_error_that_is_kept_keeps_no_pixels() -> None:
    with pytest.raises(InvalidImage) as caught:
        inspect_image(LARGE[:-600], LIMITS)
    assert caught.value.__cause__ is caught.value.__context__ is None
    held = [value for frame, _ in walk_tb(caught.value.__traceback__) for value in frame.f_locals.values()]
    opened = [value for value in held if isinstance(value, Image.Image)]
    assert opened
    for image in opened:
        with pytest.raises(ValueError, match="closed"):
            image.getpixel((0, 0))
