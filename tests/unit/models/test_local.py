"""A model in this process answers as a replica does."""

import asyncio

import numpy as np
import pytest

from core.errors import InvalidImage
from core.types import EncoderInput
from models.config import EncoderConfig
from models.encoder import LocalEncoder
from models.registry import load_encoder
from tests.support.image_files import png


@pytest.fixture
def encoder() -> LocalEncoder:
    return LocalEncoder(load_encoder(EncoderConfig(name="fake", family="fake")), decode_threads=2)


def test_answers_come_in_the_order_of_the_inputs_and_a_broken_one_fails_alone(encoder: LocalEncoder) -> None:
    inputs: list[EncoderInput] = ["red", png("red"), b"no image", "blue", png("blue")]
    encoded = asyncio.run(encoder.encode(inputs))
    assert encoded.info == asyncio.run(encoder.describe())
    red_words, red, broken, blue_words, blue = encoded.vectors
    assert isinstance(broken, InvalidImage)
    for words, image in ((red_words, red), (blue_words, blue)):
        assert isinstance(words, np.ndarray)
        assert isinstance(image, np.ndarray)
        assert words @ image == pytest.approx(1.0)


def test_calls_at_once_do_not_mix(encoder: LocalEncoder) -> None:
    async def all_at_once() -> list[float]:
        calls = [encoder.encode([png(color), color]) for color in ("red", "lime", "blue", "white")]
        answers = await asyncio.gather(*calls)
        return [float(np.dot(*answer.vectors)) for answer in answers]  # type: ignore[arg-type]

    assert asyncio.run(all_at_once()) == pytest.approx([1.0] * 4)
