"""The families with real weights in the libraries' formats: same vectors as the library, item by item."""

import asyncio
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    Blip2TextModelWithProjection,
    Blip2VisionModelWithProjection,
)

from core.errors import InvalidImage, UnsupportedModality, VitrineError
from core.types import TokenCount, Vector
from models.config import EncoderConfig
from models.encoder import Encoder, load_encoder
from models.local_encoder import LocalEncoder
from models.openclip import _within_reach
from models.torch_encoder import TorchEncoder
from tests.support import checkpoints
from tests.support.checkpoints import DEMO
from tests.support.image_files import ODD_SIZES, file, smooth

Reference = Callable[[list[Image.Image]], torch.Tensor]
TEXTS = ["a red dress", "blue striped shirt on a wooden floor", "hat"]


@cache
def load(family: str, checkpoint: Path, **settings: Any) -> Encoder:
    settings = {"draft": False, "device": "cpu", **settings}
    return load_encoder(
        EncoderConfig(name="tested", family=family, checkpoint=str(checkpoint), **settings)  # type: ignore[arg-type]
    )


@cache
def images(count: int = 50) -> list[Image.Image]:
    sizes = np.random.default_rng(7).integers(10, 400, (count - len(ODD_SIZES), 2)).tolist()
    return [smooth(width, height, seed) for seed, (width, height) in enumerate([*ODD_SIZES, *sizes])]


def vectors(answers: list[Vector | VitrineError]) -> np.ndarray:
    good = [answer for answer in answers if not isinstance(answer, VitrineError)]
    assert len(good) == len(answers), answers
    stacked = np.stack(good)
    assert stacked.dtype == np.float32
    assert np.allclose(np.linalg.norm(stacked, axis=1), 1, atol=1e-6)
    return stacked


def embed(encoder: Encoder, images: list[Image.Image]) -> np.ndarray:
    return vectors(encoder.encode_images([encoder.decode(file(image, "BMP")) for image in images]))


def least_cosine(ours: np.ndarray, theirs: torch.Tensor) -> float:
    reference = torch.nn.functional.normalize(theirs.float(), dim=-1).numpy()
    assert ours.shape == reference.shape
    return float((ours * reference).sum(axis=1).min())


def test_openclip_equals_the_library() -> None:
    encoder = load("openclip", DEMO / "openclip")
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{DEMO / 'openclip'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{DEMO / 'openclip'}")
    with torch.inference_mode():
        seen = model.eval().encode_image(torch.stack([transform(image) for image in images()]))
        read = model.encode_text(tokenizer(TEXTS))
    cosine = least_cosine(embed(encoder, images()), seen)
    print(f"openclip: least cosine {cosine:.6f}")
    assert cosine >= 0.9999
    assert least_cosine(vectors(encoder.encode_texts(TEXTS)), read) >= 0.99999


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
@pytest.mark.parametrize("registers", [0, 3])
def test_dinov2_equals_the_library(tmp_path: Path, pooling: str, registers: int) -> None:
    directory = checkpoints.dinov2(tmp_path / "dino", registers)
    encoder = load("dinov2", directory, pooling=pooling)
    processor = AutoImageProcessor.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory).eval()
    with torch.inference_mode():
        states = model(**processor(images(), return_tensors="pt")).last_hidden_state
    cls, mean = states[:, 0], states[:, 1 + registers :].mean(1)
    halves = [torch.nn.functional.normalize(half, dim=-1) for half in (cls, mean)]
    expected = {"cls": cls, "mean": mean, "cls+mean": torch.cat(halves, -1)}[pooling]
    assert least_cosine(embed(encoder, images()), expected) >= 0.9999
    assert encoder.info.dimension == expected.shape[1]


def test_blip2_retrieval_equals_the_library() -> None:
    directory = DEMO / "blip2"
    encoder = load("blip2", directory)
    processor = AutoImageProcessor.from_pretrained(directory)
    tokens = AutoTokenizer.from_pretrained(directory)(TEXTS, padding=True, return_tensors="pt")
    vision = Blip2VisionModelWithProjection.from_pretrained(directory, dtype=torch.float32)
    text = Blip2TextModelWithProjection.from_pretrained(directory, dtype=torch.float32)
    with torch.inference_mode():
        seen = vision(**processor(images(), return_tensors="pt")).image_embeds.mean(1)
        read = text(**tokens).text_embeds[:, 0]
    assert least_cosine(embed(encoder, images()), seen) >= 0.9999
    assert least_cosine(vectors(encoder.encode_texts(TEXTS)), read) >= 0.99999


@pytest.mark.parametrize(("language", "shards"), [("t5", True), ("opt", False)])
def test_blip2_captioning_embeds_without_its_language_model(
    tmp_path: Path, language: str, shards: bool
) -> None:
    directory = checkpoints.captioning_blip2(tmp_path / "whole", language, shards)
    processor = AutoImageProcessor.from_pretrained(directory)
    whole = Blip2ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
    with torch.inference_mode():
        features = whole.get_image_features(**processor(images(), return_tensors="pt"))
    if shards:
        checkpoints.remove_language_shards(directory)
    encoder = load("blip2", directory)
    seen = features.qformer_outputs.last_hidden_state.mean(1)
    assert least_cosine(embed(encoder, images()), seen) >= 0.9999
    assert encoder.info.modalities == ("image",)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_timm_equals_the_library(tmp_path: Path, architecture: str) -> None:
    directory = checkpoints.timm_model(tmp_path / "timm", architecture)
    encoder = load("timm", directory)
    model = timm.create_model(f"local-dir:{directory}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        seen = model(torch.stack([transform(image) for image in images()]))
    assert least_cosine(embed(encoder, images()), seen) >= 0.9999


@pytest.mark.parametrize(
    ("family", "precision"),
    [(family, precision) for family in ("openclip", "dinov2", "blip2") for precision in ("bf16", "fp16")]
    + [("blip2", "int8")],
)
def test_lower_precision_stays_close(family: str, precision: str) -> None:
    exact = embed(load(family, DEMO / family), images(16))
    rounded = embed(load(family, DEMO / family, precision=precision), images(16))
    cosine = float((exact * rounded).sum(axis=1).min())
    print(f"{family} {precision}: least cosine to fp32 {cosine:.5f}")
    assert cosine >= 0.99
    if family != "dinov2":
        exact, rounded = (
            vectors(load(family, DEMO / family, **how).encode_texts(TEXTS))
            for how in ({}, {"precision": precision})
        )
        assert (exact * rounded).sum(axis=1).min() >= 0.99


@pytest.mark.parametrize(
    ("family", "precision"),
    [
        (family, precision)
        for family in ("openclip", "dinov2", "timm", "blip2")
        for precision in ("fp32", "bf16")
    ]
    + [("blip2", "int8")],
)
def test_a_vector_does_not_depend_on_its_neighbors(family: str, precision: str) -> None:
    encoder = load(family, DEMO / family, precision=precision)
    many = [smooth(50 + 5 * seed, 90, seed) for seed in range(32)]
    alone = np.concatenate([embed(encoder, [image]) for image in many[:4]])
    together = embed(encoder, many)[:4]
    cosine = float((alone * together).sum(axis=1).min())
    print(f"{family} {precision}: alone against 32 together {cosine:.7f}")
    assert cosine >= 0.99999


@pytest.mark.parametrize("family", ["dinov2", "blip2"])
def test_attention_is_fused(family: str) -> None:
    configs = [module.config for module in modules(load(family, DEMO / family)) if hasattr(module, "config")]
    assert {config._attn_implementation for config in configs} == {"sdpa"}


@pytest.mark.parametrize("family", ["openclip", "dinov2", "timm", "blip2"])
def test_every_tower_is_in_evaluation_mode(family: str) -> None:
    encoder = load(family, DEMO / family)
    assert isinstance(encoder, TorchEncoder)
    towers = [getattr(tower, "__self__", tower) for tower in (encoder._image, encoder._text)]
    parts = [part for tower in towers if isinstance(tower, torch.nn.Module) for part in tower.modules()]
    assert parts
    assert not any(part.training for part in parts)


def modules(encoder: Encoder) -> list[torch.nn.Module]:
    assert isinstance(encoder, TorchEncoder)
    assert isinstance(encoder._image, torch.nn.Module)
    return [*encoder._image.modules()]


@pytest.mark.parametrize("family", ["openclip", "dinov2", "timm", "blip2"])
def test_a_broken_image_leaves_its_neighbors_alone(family: str) -> None:
    encoder = LocalEncoder(load(family, DEMO / family), decode_threads=2)
    good, other = (file(smooth(120, 80, seed), "JPEG") for seed in (0, 1))
    (alone,) = vectors(asyncio.run(encoder.encode([good])).vectors)
    before, broken, after = asyncio.run(encoder.encode([good, good[: len(good) // 2], other])).vectors
    assert isinstance(broken, InvalidImage)
    assert float(alone @ vectors([before])[0]) >= 0.99999
    assert isinstance(after, np.ndarray)


@pytest.mark.parametrize("family", ["openclip", "dinov2", "blip2", "fake"])
def test_the_smallest_image_has_a_vector(family: str) -> None:
    encoder = load(family, DEMO / family)
    assert embed(encoder, [smooth(1, 1)]).shape == (1, encoder.info.dimension)


def test_words_for_a_model_that_only_sees_are_refused() -> None:
    encoder = load("dinov2", DEMO / "dinov2")
    with pytest.raises(UnsupportedModality, match="tested takes images only"):
        encoder.encode_texts(["a red dress"])


@pytest.mark.parametrize("family", ["openclip", "blip2"])
def test_long_and_empty_texts_have_vectors(family: str) -> None:
    encoder = load(family, DEMO / family)
    assert vectors(encoder.encode_texts(["", "red " * 2000])).shape == (2, encoder.info.dimension)


@pytest.mark.parametrize("family", ["openclip", "blip2"])
def test_tokens_are_counted_as_the_model_reads_them(family: str) -> None:
    encoder = load(family, DEMO / family)
    # Three words, and the two tokens that every text has.
    assert encoder.count_tokens(["a red dress"]).tokens >= 5
    assert encoder.count_tokens(["red " * 8000, "red"]) == TokenCount(
        encoder.context_length + encoder.count_tokens(["red"]).tokens, cut_texts=1
    )
    long, longer = vectors(encoder.encode_texts(["red " * 100, "red " * 8000]))
    assert float(long @ longer) >= 0.99999


def test_a_word_without_end_is_read_as_the_library_reads_it() -> None:
    word = "".join(random.Random(1).choices("abcdefghij", k=4000))
    tokenizer = open_clip.SimpleTokenizer()
    read = _within_reach(word, tokenizer.context_length)
    assert len(read) < len(word)
    assert torch.equal(tokenizer([read]), tokenizer([word]))
    assert _within_reach(f"{' ' * 4000}red", 77).split() == ["red"]


def test_more_than_a_batch_is_embedded_in_order() -> None:
    small, large = (load("dinov2", DEMO / "dinov2", max_batch_size=size) for size in (3, 32))
    images = [smooth(64, 64, seed) for seed in range(8)]
    assert np.allclose(embed(small, images), embed(large, images), atol=1e-5)


@pytest.mark.parametrize("family", ["openclip", "dinov2", "blip2"])
def test_nothing_comes_of_nothing(family: str) -> None:
    assert load(family, DEMO / family).encode_images([]) == []
