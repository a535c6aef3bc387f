"""Pixels in shared memory: an encoder takes a read-only array as it is, and gives the vectors of single images."""

from pathlib import Path

import numpy as np

from models.config import EncoderConfig
from models.encoder import load_encoder

_WEIGHTS = Path(__file__).parents[3] / "demo" / "weights" / "dinov2"


def test_a_read_only_array_gives_the_vectors_of_its_images_without_a_warning_and_stays_as_it_is() -> None:
    encoder = load_encoder(EncoderConfig(name="dinov2", family="dinov2", checkpoint=str(_WEIGHTS)))
    shape = (5, *encoder._sample().shape)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    # As Ray hands over what lies in its object store.
    shared = np.frombuffer(pixels.tobytes(), np.uint8).reshape(shape)
    assert not shared.flags.writeable
    found = encoder.encode_images(shared)
    for vector, expected in zip(found, encoder.encode_images([each.copy() for each in pixels]), strict=True):
        assert isinstance(vector, np.ndarray)
        np.testing.assert_allclose(vector, expected, atol=1e-6)
    np.testing.assert_array_equal(shared, pixels)
