"""The scores of a matching head in an evaluation: of every image that can be scored, and by a model that works."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.blobs import FsspecBlobs
from core.errors import ModelUnavailable
from jobs.evaluation import ranking
from jobs.evaluation.ranking import match_here
from models.config import EncoderConfig
from models.encoder import Encoder, load_encoder
from tests.support.image_files import image

CONFIG = EncoderConfig(name="eyes", family="fake", compile=True)


def stored(folder: Path, *files: bytes) -> list[str]:
    blobs = FsspecBlobs(str(folder))
    return [blobs.put(each) for each in files]


def test_images_that_cannot_be_scored_are_left_out(tmp_path: Path) -> None:
    red, blue, broken = stored(tmp_path, image((255, 0, 0)).data, image((0, 0, 255)).data, b"no image")
    found = match_here(CONFIG, str(tmp_path), {"red": [red, blue, broken, "0" * 64], "blue": [blue]})
    assert found == {"red": {red: 1.0, blue: 0.0}, "blue": {blue: 1.0}}


def test_the_few_batches_of_an_evaluation_run_uncompiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[EncoderConfig]()

    def load(config: EncoderConfig) -> Encoder:
        loaded.append(config)
        return load_encoder(config)

    monkeypatch.setattr(ranking, "load_encoder", load)
    match_here(CONFIG, str(tmp_path), {})
    assert [each.compile for each in loaded] == [False]


def test_a_model_that_fails_ends_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(config: EncoderConfig) -> Encoder:
        encoder = load_encoder(config)

        def fails(_batch: NDArray[np.uint8]) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr(encoder, "look", fails)
        return encoder

    monkeypatch.setattr(ranking, "load_encoder", load)
    with pytest.raises(ModelUnavailable):
        match_here(CONFIG, str(tmp_path), {"red": stored(tmp_path, image((255, 0, 0)).data)})
