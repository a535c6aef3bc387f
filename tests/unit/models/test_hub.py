"""Hub ids, architectures and tags, from the hub's cache and without a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from models import checkpoint
from models.blip2 import is_embedding_key
from models.checkpoint import weight_files
from models.config import EncoderConfig
from models.encoder import Encoder, load_encoder
from tests.support import checkpoints
from tests.support.checkpoints import DEMO, fill
from tests.support.image_files import file, smooth

IMAGES = [smooth(30 + 7 * seed, 40, seed) for seed in range(4)]
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def load(family: str, named: str | Path, **settings: Any) -> Encoder:
    config = {"name": "tested", "family": family, "checkpoint": str(named), "device": "cpu", **settings}
    return load_encoder(EncoderConfig.model_validate(config))


def embed(encoder: Encoder) -> np.ndarray:
    answers = encoder.encode_images([encoder.decode(file(image, "BMP")) for image in IMAGES])
    return np.stack([np.asarray(answer) for answer in answers])


def assert_same(one: Encoder, other: Encoder) -> None:
    assert np.array_equal(embed(one), embed(other))
    assert one.info.fingerprint == other.info.fingerprint


@pytest.mark.parametrize("family", ["openclip", "dinov2", "blip2", "timm"])
def test_a_hub_id_is_the_version_that_its_files_are_in_a_directory(family: str, cache: Path) -> None:
    fill(cache, "someone/some-model", (DEMO / family).iterdir())
    assert_same(load(family, "someone/some-model"), load(family, DEMO / family))


def test_an_architecture_of_timm_with_its_tag_stands_for_its_hub_id(cache: Path, tmp_path: Path) -> None:
    directory = checkpoints.timm_model(tmp_path / "timm", "test_resnet")
    fill(cache, "timm/test_resnet.r160_in1k", directory.iterdir())
    assert_same(load("timm", "test_resnet.r160_in1k"), load("timm", directory))


@pytest.fixture
def tagged(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """An architecture `tiny` that open_clip knows, and weights `seeded` of it with a transform of their own."""
    own = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY)
    tag = {"hf_hub": "someone/tiny/weights.bin", **own}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"seeded": tag})

    def seed(number: int) -> None:
        torch.manual_seed(number)
        torch.save(open_clip.create_model("tiny").state_dict(), tmp_path / "weights.bin")
        for link in cache.rglob("weights.bin"):
            link.unlink()
        fill(cache, "someone/tiny", [tmp_path / "weights.bin"])

    return seed


def test_an_openclip_architecture_with_a_tag_equals_the_library(tagged: Callable[[int], None]) -> None:
    tagged(0)
    encoder = load("openclip", "tiny", pretrained="seeded")
    model, _, transform = open_clip.create_model_and_transforms("tiny", pretrained="seeded")
    words = ["a red dress", "hat"]
    with torch.inference_mode():
        seen = model.eval().encode_image(torch.stack([transform(image) for image in IMAGES]))
        read = model.encode_text(open_clip.get_tokenizer("tiny")(words))
    for ours, theirs in ((embed(encoder), seen), (np.stack(encoder.encode_texts(words)), read)):  # type: ignore[arg-type]
        expected = torch.nn.functional.normalize(theirs, dim=-1).numpy()
        assert (ours * expected).sum(axis=1).min() >= 0.9999
    assert encoder.info.checkpoint == "tiny:seeded"


def test_other_weights_under_the_same_tag_are_another_version(tagged: Callable[[int], None]) -> None:
    versions = []
    for seed in (0, 1, 0):
        tagged(seed)
        versions.append(load("openclip", "tiny", pretrained="seeded").info.fingerprint)
    assert versions[0] == versions[2] != versions[1]


def test_of_a_captioning_checkpoint_only_what_embeddings_need_is_asked_of_the_hub(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = checkpoints.captioning_blip2(tmp_path / "whole")
    needed = {*weight_files(directory, is_embedding_key)}
    unneeded = {*directory.glob("model-*")} - needed
    assert unneeded
    fill(cache, "someone/captions", {*directory.iterdir()} - unneeded)
    asked: set[str] = set()
    download = checkpoint.snapshot_download

    def watched(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(allow_patterns)
        return str(download(repository, revision=revision, allow_patterns=allow_patterns))

    monkeypatch.setattr(checkpoint, "snapshot_download", watched)
    from_hub = load("blip2", "someone/captions")
    assert {pattern for pattern in asked if "model-" in pattern} == {shard.name for shard in needed}
    assert not any("*" in pattern for pattern in asked - {*checkpoint.SETTINGS})
    assert_same(from_hub, load("blip2", directory))
