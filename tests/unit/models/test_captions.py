"""Captioning checkpoints: the library's own words, the same vectors, and no language model unless asked."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from core.errors import ConfigError, InvalidInput, UnsupportedModality
from models import blip2, huggingface
from models.config import CaptionConfig, EncoderConfig
from models.encoder import Encoder, load_encoder
from tests.support.checkpoints import DEMO, Language, captioner, remove_language_shards
from tests.support.image_files import file, smooth

Checkpoints = Callable[[Language], Path]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    @cache
    def make(language: Language) -> Path:
        return captioner(tmp_path_factory.mktemp(language), language)

    return make


def load(directory: Path, captions: CaptionConfig | None, **settings: Any) -> Encoder:
    settings = {"family": "blip2", "device": "cpu", "draft": False, **settings}
    return load_encoder(
        EncoderConfig(name="tested", checkpoint=str(directory), captions=captions, **settings)
    )


@cache
def images() -> list[Image.Image]:
    # Of the model's own size, so that no difference of resizing can change a word.
    return [smooth(28, 28, seed) for seed in range(6)]


def decoded(encoder: Encoder) -> list[Any]:
    return [encoder.decode(file(image, "BMP")) for image in images()]


def by_the_library(directory: Path, config: CaptionConfig, dtype: torch.dtype) -> list[str]:
    processor = Blip2Processor.from_pretrained(directory)
    model = Blip2ForConditionalGeneration.from_pretrained(directory, dtype=dtype).eval()
    prompt = {"text": [config.prompt] * len(images())} if config.prompt else {}
    inputs = processor(images=images(), **prompt, return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    limits = {"max_new_tokens": config.max_new_tokens, "num_beams": config.num_beams}
    with torch.inference_mode():
        tokens = model.generate(**inputs, **limits)
    texts = [" ".join(text.split()) for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    asked = processor.tokenizer.batch_decode(inputs.get("input_ids", []), skip_special_tokens=True)
    repeated = model.config.use_decoder_only_language_model and config.prompt
    return [text.removeprefix(asked[0]).strip() for text in texts] if repeated else texts


@pytest.mark.parametrize("prompt", [None, "a photo of"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("language", ["t5", "opt"])
def test_captions_are_those_of_the_library(
    checkpoint: Checkpoints, language: Language, beams: int, prompt: str | None
) -> None:
    config = CaptionConfig(prompt=prompt, num_beams=beams, max_new_tokens=7, max_batch_size=4)
    encoder = load(checkpoint(language), config)
    expected = by_the_library(checkpoint(language), config, torch.float32)
    assert len(set(expected)) >= 3
    assert encoder.caption(decoded(encoder)) == expected


@pytest.mark.parametrize("language", ["t5", "opt"])
def test_captions_in_bf16_are_those_of_the_library(checkpoint: Checkpoints, language: Language) -> None:
    config = CaptionConfig(max_new_tokens=5, max_batch_size=6)
    encoder = load(checkpoint(language), config, precision="bf16")
    expected = by_the_library(checkpoint(language), config, torch.bfloat16)
    same = [ours == theirs for ours, theirs in zip(encoder.caption(decoded(encoder)), expected, strict=True)]
    assert sum(same) >= 5


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
@pytest.mark.parametrize("language", ["t5", "opt"])
def test_vectors_and_their_version_do_not_depend_on_captions(
    checkpoint: Checkpoints, language: Language, precision: str
) -> None:
    without, both = (
        load(checkpoint(language), captions, precision=precision) for captions in (None, CaptionConfig())
    )
    plain, also = (np.stack(encoder.encode_images(decoded(encoder))) for encoder in (without, both))
    assert np.array_equal(plain, also)
    assert without.info.fingerprint == both.info.fingerprint
    assert without.info.captions is None
    assert both.info.captions not in (None, both.info.fingerprint)


@pytest.mark.parametrize("language", ["t5", "opt"])
def test_eight_bit_keeps_what_joins_images_to_words_in_full(
    checkpoint: Checkpoints, language: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []

    def load_model(*given: Any, **options: Any) -> Any:
        models.append(huggingface.load_model(*given, **options))
        return models[-1]

    monkeypatch.setattr(blip2, "load_model", load_model)
    encoder = load(checkpoint(language), CaptionConfig(max_new_tokens=5), precision="int8")
    assert all(isinstance(text, str) and text for text in encoder.caption(decoded(encoder)))
    dtypes = {name: parameter.dtype for name, parameter in models[0].named_parameters()}
    eight = {name for name, dtype in dtypes.items() if dtype == torch.int8}
    assert any(name.startswith("language_model.") for name in eight)
    assert any(name.startswith("vision_model.") for name in eight)
    assert not [name for name in eight if "lm_head" in name or name.startswith("language_projection")]


@pytest.mark.slow
def test_the_version_of_captions_moves_with_what_moves_them(checkpoint: Checkpoints) -> None:
    directory = checkpoint("t5")
    configs = [
        CaptionConfig(),
        CaptionConfig(prompt="a photo of"),
        CaptionConfig(num_beams=2),
        CaptionConfig(max_new_tokens=9),
    ]
    versions = [load(directory, config).info.captions for config in configs]
    assert len(set(versions)) == len(configs)
    assert load(directory, CaptionConfig(max_batch_size=3)).info.captions == versions[0]


def test_without_captions_the_language_models_shards_are_not_needed(
    tmp_path: Path,
) -> None:
    directory = captioner(tmp_path / "cut", "t5")
    remove_language_shards(directory)
    encoder = load(directory, None)
    with pytest.raises(UnsupportedModality, match="does not ask for them"):
        encoder.caption(decoded(encoder))
    with pytest.raises(ConfigError):
        load(directory, CaptionConfig())


def test_a_checkpoint_that_names_no_first_token_begins_as_its_tokenizer_does(tmp_path: Path) -> None:
    encoder = load(captioner(tmp_path / "bare", "t5", bos=False), CaptionConfig(max_new_tokens=5))
    assert all(isinstance(text, str) for text in encoder.caption(decoded(encoder)))


def test_an_image_without_words_fails_alone(checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(checkpoint("opt"), CaptionConfig(max_new_tokens=5))
    write = encoder.write
    monkeypatch.setattr(encoder, "write", lambda batch: ["", *write(batch)[1:]])
    first, *others = encoder.caption(decoded(encoder))
    assert isinstance(first, InvalidInput)
    assert all(isinstance(text, str) for text in others)


def test_a_batch_that_fails_costs_only_the_image_that_breaks_it(
    checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(checkpoint("opt"), CaptionConfig(max_new_tokens=5))
    pixels = decoded(encoder)
    write = encoder.write

    def fail_on_the_third(batch: np.ndarray) -> list[str]:
        if any(np.array_equal(each, pixels[2]) for each in batch):
            raise RuntimeError("poison")
        return write(batch)

    monkeypatch.setattr(encoder, "write", fail_on_the_third)
    answers = encoder.caption(pixels)
    assert [isinstance(answer, str) for answer in answers] == [True, True, False, True, True, True]


def test_a_retrieval_checkpoint_cannot_be_asked_for_captions() -> None:
    with pytest.raises(ConfigError, match="no language model"):
        load(DEMO / "blip2", CaptionConfig())
    with pytest.raises(ValueError, match="dinov2 has no language model"):
        load(DEMO / "dinov2", CaptionConfig(), family="dinov2")


def test_the_fake_names_colors() -> None:
    encoder = load(Path(), CaptionConfig(), family="fake")
    pixels = [encoder.decode(file(Image.new("RGB", (30, 20), each), "PNG")) for each in ("red", "navy")]
    assert encoder.caption(pixels) == ["a red thing", "a navy thing"]
    assert encoder.caption([]) == []
