import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from models.config import EncoderConfig
from models.device import place
from models.encoder import fingerprint, load_encoder
from models.preprocessing import Preprocessing
from models.torch_encoder import TorchEncoder, Towers
from tests.support import checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return checkpoints.dinov2(tmp_path / "dino")


def of(directory: Path, **settings: Any) -> str:
    settings = {"name": "tested", "device": "cpu", **settings}
    return load_encoder(
        EncoderConfig(family="dinov2", checkpoint=str(directory), **settings)
    ).info.fingerprint


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_it_is_twelve_lower_case_hex_digits(checkpoint: Path) -> None:
    value = of(checkpoint)
    assert len(value) == 12
    assert set(value) <= set("0123456789abcdef")


@pytest.mark.slow
def test_it_is_the_same_in_another_process_under_another_path_and_thread_count(
    checkpoint: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    here = of(checkpoint)
    checkpoint.rename(moved)
    probe = (
        "import sys; from models.config import EncoderConfig; from models.encoder import load_encoder;"
        "print(load_encoder(EncoderConfig(name='other', family='dinov2', checkpoint=sys.argv[1], threads=1,"
        " device='auto', max_batch_size=3)).info.fingerprint)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    answer = subprocess.run(
        [sys.executable, "-c", probe, str(moved)], capture_output=True, text=True, check=True, env=environment
    )
    assert answer.stdout.strip() == here


def test_one_changed_weight_changes_it(checkpoint: Path) -> None:
    before = of(checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    name = sorted(weights)[len(weights) // 2]
    weights[name].view(-1)[0] += 0.01
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert of(checkpoint) != before


@pytest.mark.parametrize(
    "settings",
    [
        {"revision": "v2"},
        {"pooling": "mean"},
        {"pooling": "cls+mean"},
        {"precision": "bf16"},
        {"draft": False},
    ],
    ids=str,
)
def test_how_the_weights_are_used_changes_it(checkpoint: Path, settings: dict[str, Any]) -> None:
    assert of(checkpoint, **settings) != of(checkpoint)


def test_the_preprocessing_changes_it(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr("models.torch_encoder.COLORS", "as they come")
        assert of(checkpoint) != before
    rewrite(checkpoint / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    assert of(checkpoint) != before


def test_the_default_spelled_out_does_not_change_it(checkpoint: Path) -> None:
    assert of(checkpoint, pooling="cls") == of(checkpoint)


def test_bookkeeping_of_the_library_and_other_files_do_not_change_it(checkpoint: Path) -> None:
    before = of(checkpoint)
    rewrite(checkpoint / "config.json", transformers_version="9.9", _name_or_path="/somewhere")
    (checkpoint / "README.md").write_text("A model.")
    assert of(checkpoint) == before


def test_quantization_changes_it() -> None:
    blip2 = {"name": "tested", "family": "blip2", "checkpoint": str(checkpoints.DEMO / "blip2")}
    ways = ({"precision": "bf16"}, {"precision": "int8"}, {"precision": "int8", "int8_threshold": 6.0})
    prints = {
        load_encoder(EncoderConfig.model_validate({**blip2, **way, "device": "cpu"})).info.fingerprint
        for way in ways
    }
    assert len(prints) == len(ways)


def test_the_dimension_changes_it() -> None:
    config = EncoderConfig(name="tested", family="timm", checkpoint="any/thing", device="cpu")
    preprocessing = Preprocessing("squash", (4, 4), (4, 4), "bicubic", (0.0,) * 3, (1.0,) * 3)

    def version(dimension: int) -> str:
        towers = Towers(
            lambda pixels: pixels.flatten(1)[:, :dimension], None, preprocessing, (), "tower", "own"
        )
        return TorchEncoder(config, towers, place(config)).info.fingerprint

    assert version(8) == version(8) != version(9)


def test_the_tokenizer_changes_it(tmp_path: Path) -> None:
    directory = tmp_path / "clip"
    shutil.copytree(checkpoints.DEMO / "openclip", directory)
    settings = {"name": "tested", "family": "openclip", "checkpoint": str(directory), "device": "cpu"}
    config = EncoderConfig.model_validate(settings)
    before = load_encoder(config).info.fingerprint
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    one, other = sorted(words)[-2:]
    words[one], words[other] = words[other], words[one]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load_encoder(config).info.fingerprint != before


def test_the_hash_in_the_name_of_a_cached_download_stands_for_its_content(tmp_path: Path) -> None:
    content = b"weights" * 1000
    (tmp_path / "plain.safetensors").write_bytes(content)
    blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(content)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "plain.safetensors").symlink_to(blob)
    settings = {"precision": "fp32"}
    linked = fingerprint([snapshot / "plain.safetensors"], settings)
    assert linked == fingerprint([tmp_path / "plain.safetensors"], settings)
