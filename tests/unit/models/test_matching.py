"""BLIP-2's matching head: the library's scores, in every precision, and a cache that is bounded by bytes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Blip2ForImageTextRetrieval

from core.errors import InvalidInput, UnsupportedModality
from models.config import EncoderConfig
from models.encoder import Encoder, load_encoder
from models.matching import FeatureCache
from models.torch_encoder import TorchEncoder
from tests.support import checkpoints

TEXTS = ("a red dress", "blue", "a striped dress a striped dress a striped dress a striped dress")
COUNT = 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.retrieval_blip2(tmp_path_factory.mktemp("retrieval"))


def load(directory: Path, **settings: Any) -> Encoder:
    config = {
        "name": "tested",
        "family": "blip2",
        "checkpoint": str(directory),
        "device": "cpu",
        "threads": 1,
    }
    return load_encoder(EncoderConfig.model_validate({**config, **settings}))


def pixels() -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 256, (COUNT, 3, 28, 28), dtype=np.uint8))


def scores(encoder: Encoder, text: str) -> list[float]:
    found = encoder.match(
        text, [each for each in encoder.features(pixels()) if not isinstance(each, Exception)]
    )
    assert len(found) == COUNT
    return [each for each in found if isinstance(each, float)]


@torch.no_grad()
def of_the_library(encoder: Encoder, directory: Path, text: str) -> list[float]:
    """LAVIS's formula over what the library returns: the matching logit plus the contrastive similarity."""
    assert isinstance(encoder, TorchEncoder)
    model = Blip2ForImageTextRetrieval.from_pretrained(directory, dtype=torch.float32).eval()
    tokens = AutoTokenizer.from_pretrained(directory)(
        [text] * COUNT, truncation=True, max_length=12, return_tensors="pt"
    )
    inputs = {
        "pixel_values": encoder._values(np.stack(pixels())),
        **{name: tokens[name] for name in ("input_ids", "attention_mask")},
    }
    matching = model(**inputs, use_image_text_matching_head=True).logits_per_image
    contrastive = model(**inputs).logits_per_image
    both: list[float] = (matching[:, 1] + contrastive[:, 0]).tolist()
    return both


@pytest.mark.parametrize("text", TEXTS)
def test_scores_are_those_of_the_library(checkpoint: Path, text: str) -> None:
    encoder = load(checkpoint)
    expected = of_the_library(encoder, checkpoint, text)
    assert max(expected) - min(expected) > 0.01, "the pairs must differ"
    np.testing.assert_allclose(scores(encoder, text), expected, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_scores_in_fewer_bits_order_the_same_way(checkpoint: Path, precision: str) -> None:
    full, fewer = load(checkpoint), load(checkpoint, precision=precision)
    for text in TEXTS:
        exact, rounded = np.array(scores(full, text)), np.array(scores(fewer, text))
        assert np.corrcoef(exact, rounded)[0, 1] > 0.99
        np.testing.assert_allclose(rounded, exact, atol=0.1 * np.ptp(exact) + 0.02)


def test_matching_reads_texts_in_the_template_too(checkpoint: Path) -> None:
    plain, prompted = load(checkpoint), load(checkpoint, text_template="a striped {}")
    assert scores(prompted, "dress") == scores(plain, "a striped dress")
    assert scores(prompted, "dress") != scores(plain, "dress")
    # Scores of replicas with another template are others. Images and their collection stay the same.
    assert prompted.info.matching != plain.info.matching
    assert prompted.info.fingerprint == plain.info.fingerprint


def test_a_score_does_not_depend_on_the_other_images(checkpoint: Path) -> None:
    encoder = load(checkpoint, max_batch_size=2)
    together = scores(encoder, TEXTS[0])
    alone = [encoder.match(TEXTS[0], encoder.features([each]))[0] for each in pixels()]  # type: ignore[arg-type]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_features_hold_their_own_memory_alone(checkpoint: Path) -> None:
    (first, *_) = load(checkpoint).features(pixels())
    for each in (first.patches, first.queries):  # type: ignore[union-attr]
        assert each.untyped_storage().nbytes() == each.nbytes


def test_a_checkpoint_without_the_head_is_refused() -> None:
    encoder = load_encoder(
        EncoderConfig(name="eyes", family="dinov2", checkpoint=str(checkpoints.DEMO / "dinov2"), device="cpu")
    )
    assert encoder.info.matching is None
    with pytest.raises(UnsupportedModality, match="eyes has no matching head"):
        encoder.match("red", [])


def test_a_captioning_checkpoint_has_no_head(tmp_path: Path) -> None:
    assert load(checkpoints.captioning_blip2(tmp_path)).info.matching is None


def test_a_score_that_is_not_finite_is_an_error(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(checkpoint)
    monkeypatch.setattr(encoder, "judge", lambda text, features: [float("nan"), 1.0])
    bad, good = encoder.match("red", encoder.features(pixels()[:2]))  # type: ignore[arg-type]
    assert isinstance(bad, InvalidInput)
    assert good == 1.0


def test_a_head_in_a_shard_of_its_own_changes_scores_and_no_version(checkpoint: Path, tmp_path: Path) -> None:
    for file in checkpoint.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(checkpoint / "model.safetensors")
    head = {name: tensor for name, tensor in weights.items() if name.startswith("itm_head.")}
    shards = {
        "model-00001-of-00002.safetensors": {name: weights[name] for name in weights if name not in head},
        "model-00002-of-00002.safetensors": head,
    }
    for name, tensors in shards.items():
        save_file(tensors, tmp_path / name, metadata={"format": "pt"})
    index = {key: name for name, tensors in shards.items() for key in tensors}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    before = load(tmp_path).info
    head["itm_head.bias"] += 1
    save_file(head, tmp_path / "model-00002-of-00002.safetensors", metadata={"format": "pt"})
    after = load(tmp_path).info
    assert before.fingerprint == after.fingerprint
    assert None not in (before.matching, after.matching)
    assert before.matching != after.matching


class Sized:
    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def test_the_cache_keeps_what_was_used_last_within_its_bytes() -> None:
    cache = FeatureCache(100)
    for name in "abc":
        cache.put(name, Sized(33))
    cache.get("a")
    cache.put("d", Sized(33))
    assert [name for name in "abcd" if cache.get(name) is not None] == ["a", "c", "d"]
    cache.put("e", Sized(60))
    assert [name for name in "abcde" if cache.get(name) is not None] == ["d", "e"]


def test_the_cache_counts_what_is_put_twice_once_and_keeps_nothing_too_large() -> None:
    cache = FeatureCache(100)
    for _ in range(5):
        cache.put("a", Sized(50))
    cache.put("b", Sized(50))
    assert len(cache) == 2
    cache.put("c", Sized(101))
    assert [name for name in "abc" if cache.get(name) is not None] == ["a", "b"]
    cache.put("d", Sized(100))
    assert [name for name in "abcd" if cache.get(name) is not None] == ["d"]


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = FeatureCache(0)
    cache.put("a", Sized(1))
    assert len(cache) == 0
