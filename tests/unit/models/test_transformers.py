"""Family transformers: the vectors of the library's own processors and models, for every kind of checkpoint."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from core.errors import ConfigError, UnsupportedModality
from core.types import TokenCount
from models.config import EncoderConfig
from models.encoder import Encoder, load_encoder
from models.huggingface import load_preprocessing
from models.transformers import _context_length
from tests.support import checkpoints, tiny_transformers
from tests.support.image_files import ODD_SIZES, file, smooth
from tests.support.tiny_transformers import BACKBONES, DUAL_ENCODERS

TEXTS = ["a red dress", "Blue striped shirt, on a wooden floor!", "hat", "", "a photo of a hat " * 9]
LOWER_CASE = ("siglip", "siglip2")
MAKERS = {**DUAL_ENCODERS, **BACKBONES}

Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Each kind of checkpoint, made once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def make(name: str) -> Path:
        return getattr(tiny_transformers, name)(folder / name)  # type: ignore[no-any-return]

    yield make
    loaded.cache_clear()
    shutil.rmtree(folder)


@cache
def loaded(checkpoint: Path, family: str = "transformers", **settings: Any) -> Encoder:
    return load(checkpoint, family, **settings)


def load(checkpoint: Path, family: str = "transformers", **settings: Any) -> Encoder:
    settings = {"name": "tested", "draft": False, "device": "cpu", **settings}
    return load_encoder(
        EncoderConfig.model_validate(settings | {"family": family, "checkpoint": str(checkpoint)})
    )


@cache
def images() -> list[Image.Image]:
    sizes = [*ODD_SIZES, (3, 200), (200, 3), (2, 2)]
    sizes += np.random.default_rng(7).integers(10, 400, (48 - len(sizes), 2)).tolist()
    palette = smooth(90, 71, 98).quantize(40)
    gray = smooth(71, 90, 99).convert("L")
    return [*(smooth(width, height, seed) for seed, (width, height) in enumerate(sizes)), palette, gray]


def embed(encoder: Encoder, some: Sequence[Image.Image]) -> np.ndarray:
    return stack(encoder.encode_images([encoder.decode(file(image, "PNG")) for image in some]))


def stack(answers: Sequence[Any]) -> np.ndarray:
    assert all(isinstance(answer, np.ndarray) for answer in answers), answers
    return np.stack(answers)


def unit(rows: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(rows.float().flatten(1), dim=-1).numpy()


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    assert ours.shape == theirs.shape
    return np.asarray((ours * theirs).sum(axis=1))


def assert_distinct(vectors: np.ndarray) -> None:
    """Different inputs have different vectors: without that, a comparison says nothing."""
    others = (vectors @ vectors.T)[~np.eye(len(vectors), dtype=bool)]
    assert np.median(others) < 0.95


@torch.inference_mode()
def answered(checkpoint: Path, some: Sequence[Image.Image]) -> Any:
    """What the library's own image processor and model answer."""
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    values = processor(images=[image.convert("RGB") for image in some], return_tensors="pt")
    return getattr(model, "get_image_features", model)(**values)


@pytest.mark.parametrize("kind", [*MAKERS])
def test_images_have_the_vectors_of_the_library(kind: str, made: Made) -> None:
    encoder = loaded(made(kind))
    answer = answered(made(kind), images())
    pooled = {"vit_classifier": lambda: answer.last_hidden_state[:, 0]} | {
        "pvt": lambda: answer.last_hidden_state.mean((2, 3))
    }
    expected = unit(pooled.get(kind, lambda: answer.pooler_output)())
    ours = embed(encoder, images())
    least = cosines(ours, expected).min()
    print(f"{kind}: least cosine {least:.6f}")
    assert least >= 0.9999
    assert_distinct(expected)
    assert encoder.info.dimension == expected.shape[1]
    assert encoder.info.modalities == (("image", "text") if kind in DUAL_ENCODERS else ("image",))
    alone = np.concatenate([embed(encoder, [image]) for image in images()[:6]])
    assert cosines(alone, ours[:6]).min() >= 0.99999


@pytest.mark.parametrize("kind", [*DUAL_ENCODERS])
def test_texts_have_the_vectors_of_the_library(kind: str, made: Made) -> None:
    encoder = loaded(made(kind))
    tokenizer = AutoTokenizer.from_pretrained(made(kind))
    read = [text.lower() for text in TEXTS] if kind in LOWER_CASE else TEXTS
    tokens = tokenizer(
        read, padding="max_length", truncation=True, max_length=encoder.context_length, return_tensors="pt"
    )
    with torch.inference_mode():
        model = AutoModel.from_pretrained(made(kind), dtype=torch.float32).eval()
        expected = unit(model.get_text_features(**tokens).pooler_output)
    ours = stack(encoder.encode_texts(TEXTS))
    assert cosines(ours, expected).min() >= 0.9999
    assert_distinct(expected)
    alone = np.concatenate([stack(encoder.encode_texts([text])) for text in TEXTS])
    assert cosines(alone, ours).min() >= 0.99999


@pytest.mark.parametrize(
    ("kind", "longest"),
    [("clip", 16), ("siglip", 16), ("siglip2", 16), ("metaclip2", 20), ("chinese_clip", 24), ("altclip", 24)],
)
def test_a_text_is_cut_where_tokenizer_or_model_end(kind: str, longest: int, made: Made) -> None:
    encoder = loaded(made(kind))
    assert encoder.context_length == longest
    assert encoder.count_tokens(["hat " * 100, ""]) == TokenCount(
        longest + encoder.count_tokens([""]).tokens, cut_texts=1
    )


def test_a_text_of_any_length_needs_a_limit() -> None:
    endless = SimpleNamespace(model_max_length=VERY_LARGE_INTEGER)
    with pytest.raises(ConfigError, match="says how many tokens a text may have"):
        _context_length(torch.nn.Linear(2, 2), endless)


@pytest.mark.parametrize("kind", LOWER_CASE)
def test_siglip_reads_lower_case_at_full_length(kind: str, made: Made) -> None:
    encoder = loaded(made(kind))
    upper, lower = stack(encoder.encode_texts(["Red Hat", "red hat"]))
    assert np.array_equal(upper, lower)
    model = AutoModel.from_pretrained(made(kind), dtype=torch.float32).eval()
    tokens = AutoTokenizer.from_pretrained(made(kind))(["red hat"], return_tensors="pt")
    with torch.inference_mode():
        unpadded = unit(model.get_text_features(**tokens).pooler_output)
    assert cosines(lower[None], unpadded).min() < 0.99


def test_clip_reads_capitals_as_its_tokenizer_does_and_pads_no_more_than_needed(made: Made) -> None:
    encoder = loaded(made("clip"))
    tokens: list[int] = []
    text: Any = encoder._text  # type: ignore[attr-defined]
    features = text.model.get_text_features

    def watched(**inputs: torch.Tensor) -> Any:
        tokens.append(inputs["input_ids"].shape[1])
        return features(**inputs)

    text.model.get_text_features = watched
    try:
        encoder.encode_texts(["hat", "red hat"])
    finally:
        text.model.get_text_features = features
    assert tokens == [encoder.count_tokens(["red hat"]).tokens]


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
@pytest.mark.parametrize(("kind", "first_patch"), [("dinov3_vit", 5), ("dinov2", 1), ("vit", 1)])
def test_tokens_are_pooled_as_configured(kind: str, first_patch: int, pooling: str, made: Made) -> None:
    some = images()[:8]
    encoder = load(made(kind), pooling=pooling)
    states = answered(made(kind), some).last_hidden_state
    cls, mean = states[:, 0], states[:, first_patch:].mean(1)
    halves = torch.cat([torch.nn.functional.normalize(half, dim=-1) for half in (cls, mean)], -1)
    expected = unit({"cls": cls, "mean": mean, "cls+mean": halves}[pooling])
    assert cosines(embed(encoder, some), expected).min() >= 0.9999
    assert encoder.info.fingerprint != loaded(made(kind)).info.fingerprint


def test_a_tower_without_a_class_token_can_take_the_mean_of_its_patches(made: Made) -> None:
    encoder = load(made("siglip_vision"), pooling="mean")
    expected = unit(answered(made("siglip_vision"), images()[:4]).last_hidden_state.mean(1))
    assert cosines(embed(encoder, images()[:4]), expected).min() >= 0.9999


@pytest.mark.parametrize(
    ("kind", "pooling", "hint"),
    [
        ("swin", "cls", "SwinModel, which takes no pooling: it pools by itself"),
        ("resnet", "cls", "ResNetModel, which takes pooling mean"),
        ("siglip_vision", "cls+mean", "which takes pooling mean"),
        ("clip", "mean", "projects to one vector by itself; leave out pooling mean"),
    ],
)
def test_a_pooling_that_the_model_has_no_tokens_for_is_refused(
    kind: str, pooling: str, hint: str, made: Made
) -> None:
    with pytest.raises(ConfigError, match=hint):
        load(made(kind), pooling=pooling)


@pytest.mark.parametrize("kind", ["siglip", "dinov3_vit"])
def test_a_hub_id_is_the_version_that_its_files_are_in_a_directory(
    kind: str, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    checkpoints.fill(tmp_path, "someone/some-model", made(kind).iterdir())
    from_hub = load(Path("someone/some-model"))
    assert from_hub.info.fingerprint == loaded(made(kind)).info.fingerprint
    assert np.array_equal(embed(from_hub, images()[:3]), embed(loaded(made(kind)), images()[:3]))


def test_family_dinov2_loads_the_same_vectors(made: Made) -> None:
    named, general = (
        embed(load(made("dinov2"), family), images()[:4]) for family in ("dinov2", "transformers")
    )
    assert np.array_equal(named, general)
    with pytest.raises(ConfigError, match="family dinov2 needs dinov2"):
        load(made("dinov3_vit"), "dinov2")


def test_a_large_convnext_sees_the_whole_image(tmp_path: Path) -> None:
    checkpoint = tiny_transformers.convnext(tmp_path / "large", edge=384)
    some = images()[3:7]
    expected = unit(answered(checkpoint, some).pooler_output)
    assert cosines(embed(load(checkpoint), some), expected).min() >= 0.9999


def test_transparency_is_white(made: Made) -> None:
    clear = smooth(70, 50).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    white = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    expected = unit(answered(made("clip"), [white]).pooler_output)
    assert cosines(embed(loaded(made("clip")), [clear]), expected).min() >= 0.9999


@pytest.mark.parametrize(
    ("kind", "precision"),
    [(kind, "bf16") for kind in ("clip", "siglip", "align", "dinov3_vit", "convnext")]
    + [(kind, "int8") for kind in ("metaclip2", "siglip", "align", "dinov3_vit", "swin")],
)
def test_lower_precision_stays_close(kind: str, precision: str, made: Made) -> None:
    exact, rounded = (loaded(made(kind), precision=each) for each in ("fp32", precision))
    ours = embed(rounded, images()[:12])
    assert cosines(embed(exact, images()[:12]), ours).min() >= 0.99
    assert cosines(embed(rounded, images()[:1]), ours[:1]).min() >= 0.99999
    assert exact.info.fingerprint != rounded.info.fingerprint
    if kind in DUAL_ENCODERS:
        assert cosines(*(stack(each.encode_texts(TEXTS)) for each in (exact, rounded))).min() >= 0.99


def test_texts_are_put_into_the_template(made: Made) -> None:
    plain = loaded(made("clip"))
    prompted = load(made("clip"), text_template="a photo of {}")
    assert np.array_equal(
        stack(prompted.encode_texts(["hat", "dress"])),
        stack(plain.encode_texts(["a photo of hat", "a photo of dress"])),
    )
    assert prompted.count_tokens(["hat"]) == plain.count_tokens(["a photo of hat"])
    # Images and their collection stay the same.
    assert prompted.info.fingerprint == plain.info.fingerprint


def test_a_template_needs_a_place_for_the_text_and_a_model_that_reads(made: Made) -> None:
    for template in ("a photo", "{} or {}"):
        with pytest.raises(ValidationError, match=r"needs `\{\}` once"):
            load(made("clip"), text_template=template)
    with pytest.raises(ValidationError, match="timm reads no texts"):
        load(made("clip"), "timm", text_template="a {}")
    with pytest.raises(ConfigError, match="text_template is for models with a text tower"):
        load(made("vit"), text_template="a {}")


def test_texts_for_a_backbone_are_refused(made: Made) -> None:
    with pytest.raises(UnsupportedModality, match="tested takes images only"):
        loaded(made("vit")).encode_texts(["hat"])


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Callable[[str], Path]:
    """A checkpoint of one's own, to be damaged."""
    return lambda kind: Path(shutil.copytree(made(kind), tmp_path / kind))


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (
            tiny_transformers.language_model,
            "holds a bert, which does not embed images; a dual encoder such as",
        ),
        (tiny_transformers.naflex, "NaFlex.*take a checkpoint of a fixed size"),
        (checkpoints.timm_model, "is a checkpoint of family timm"),
        (checkpoints.captioning_blip2, "is a checkpoint of family blip2"),
    ],
)
def test_a_checkpoint_of_another_kind_says_what_it_is(
    make: Callable[[Path], Path], hint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=hint):
        load(make(tmp_path / "other"))


@pytest.mark.parametrize(
    ("auto_map", "hint"),
    [
        ({}, "$"),
        ({"auto_map": {"AutoModel": "code.Own"}}, "; code that comes with a checkpoint is never run$"),
    ],
)
def test_an_unknown_type_is_named(auto_map: dict[str, Any], hint: str, copied: Callable[[str], Path]) -> None:
    checkpoint = copied("clip")
    rewrite(checkpoint / "config.json", model_type="own_clip", **auto_map)
    with pytest.raises(
        ConfigError, match=f"says model_type own_clip, which transformers does not know{hint}"
    ):
        load(checkpoint)


@pytest.mark.parametrize(
    ("kind", "pattern", "hint"),
    [
        ("clip", "token*", "holds no tokenizer: none of tokenizer.json, "),
        ("siglip", "spiece*", "holds no tokenizer"),
        ("vit", "preprocessor*", "holds no preprocessor_config.json, so how to resize"),
        ("vit", "model*", "holds none of model.safetensors"),
        ("vit", "config*", "holds no config.json"),
    ],
)
def test_a_missing_file_is_named(kind: str, pattern: str, hint: str, copied: Callable[[str], Path]) -> None:
    checkpoint = copied(kind)
    for path in checkpoint.glob(pattern):
        path.unlink()
    with pytest.raises(ConfigError, match=hint):
        load(checkpoint)


@pytest.mark.parametrize("tower", ["vision_model.", "text_model.", "visual_projection."])
def test_weights_without_a_tower_are_refused(tower: str, copied: Callable[[str], Path]) -> None:
    checkpoint = copied("clip")
    weights = load_file(checkpoint / "model.safetensors")
    left = {name: tensor for name, tensor in weights.items() if not name.startswith(tower)}
    assert len(left) < len(weights)
    save_file(left, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=rf"lacks \d+ tensors of CLIPModel, such as {tower}"):
        load(checkpoint)


def test_a_damaged_pooler_is_refused_and_not_left_out(copied: Callable[[str], Path]) -> None:
    checkpoint = copied("vit")
    weights = load_file(checkpoint / "model.safetensors")
    del weights["pooler.dense.bias"], weights["layernorm.bias"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 2 tensors of ViTModel, such as layernorm\.bias"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        (
            {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True},
            "has steps that",
        ),
        ({"size": {"shortest_edge": 30}, "do_center_crop": False}, "neither crops nor squashes"),
        ({"size": {"shortest_edge": 30, "longest_edge": 50}}, "shortest_edge, or height and width, work"),
        ({"resample": 1}, "resizes by lanczos; bilinear and bicubic work"),
    ],
)
def test_preprocessing_that_cannot_be_done_here_is_refused(
    settings: dict[str, Any], hint: str, copied: Callable[[str], Path]
) -> None:
    checkpoint = copied("clip")
    rewrite(checkpoint / "preprocessor_config.json", **settings)
    with pytest.raises(ConfigError, match=hint):
        load_preprocessing(checkpoint)
