"""Training of the demo's models: the dataset, and a checkpoint after a handful of steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import Dinov2Model

from demo.catalog import demo_products
from demo.drawing import draw
from demo.garments import BACKGROUNDS, Design, garments, split_garments
from demo.training import blip2, openclip, timm
from demo.training import dinov2 as dinov2_training
from demo.training.command import embed_images, embed_texts, options
from demo.training.dataset import INPUT_SIZE, LabeledImages, training_images
from demo.training.optimization import Schedule, contrastive_loss, fitting
from models.config import EncoderConfig, Family
from models.encoder import load_encoder


def test_a_tenth_of_the_garments_is_never_trained() -> None:
    trained, never_trained = split_garments()
    assert len(never_trained) == 50
    assert set(trained).isdisjoint(never_trained)
    assert set(trained) | set(never_trained) == set(garments())


def test_training_images_show_trained_garments_only() -> None:
    _, never_trained = split_garments()
    shown = {design.garment for design in training_images(120, processes=1).designs}
    assert shown.isdisjoint(never_trained)


def test_the_same_seed_draws_the_same_training_images() -> None:
    first, again = (training_images(6, seed=2, processes=1) for _ in range(2))
    assert first.designs == again.designs
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert first.pixels.shape == (6, INPUT_SIZE, INPUT_SIZE, 3)


@pytest.mark.slow
def test_drawing_in_several_processes_changes_nothing() -> None:
    np.testing.assert_array_equal(
        training_images(8, processes=1).pixels, training_images(8, processes=2).pixels
    )


def test_labels_are_places_in_the_vocabularies() -> None:
    images = training_images(5, processes=1)
    assert [BACKGROUNDS[place] for place in images.labels[:, 3]] == [
        design.background for design in images.designs
    ]


def test_a_view_moves_the_garment_and_keeps_its_dye() -> None:
    design, item = Design("bag", "green", "plain", "white"), 11
    one, other = (_pixels(design, item, view) for view in (1, 2))
    assert not np.array_equal(one, other)
    for image in (one, other):
        greenness = image[..., 1].astype(int) - np.maximum(image[..., 0], image[..., 2])
        assert np.mean(greenness > 40) > 0.1


def _pixels(design: Design, item: int, view: int) -> np.typing.NDArray[np.uint8]:
    return np.asarray(draw(design, 96, np.random.SeedSequence(item), np.random.SeedSequence(view)))


STEPS = 2


@pytest.fixture(scope="module")
def images() -> LabeledImages:
    torch.manual_seed(0)
    return training_images(24, processes=1)


@pytest.fixture(scope="module")
def dinov2(images: LabeledImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dinov2")
    dinov2_training.train(images, STEPS, out)
    return out


def dimension(family: Family, out: Path, words: str | None = None) -> int:
    """Of a unit vector that the serving encoder gives for an image or for a text."""
    encoder = load_encoder(EncoderConfig(name=family, family=family, checkpoint=str(out), threads=1))
    image = next(demo_products(1, 1)).images[0]
    rows = embed_texts(encoder, [words]) if words else embed_images(encoder, [image])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    return int(rows.shape[1])


@pytest.mark.slow
def test_openclip_is_loadable(images: LabeledImages, tmp_path: Path) -> None:
    openclip.train(images, STEPS, tmp_path)
    assert dimension("openclip", tmp_path) == dimension("openclip", tmp_path, "red dress") == 64


def test_dinov2_is_loadable(dinov2: Path) -> None:
    assert dimension("dinov2", dinov2) == 96


@pytest.mark.slow
def test_the_larger_dinov2_is_loadable_and_of_another_dimension(
    images: LabeledImages, tmp_path: Path
) -> None:
    dinov2_training.train(images, STEPS, tmp_path, dinov2_training.LARGE)
    assert dimension("dinov2", tmp_path) == 144


@pytest.mark.slow
def test_blip2_is_loadable(images: LabeledImages, dinov2: Path, tmp_path: Path) -> None:
    blip2.train(images, STEPS, tmp_path, dinov2)
    assert dimension("blip2", tmp_path) == dimension("blip2", tmp_path, "red dress") == 64


def test_blip2_sees_through_the_dinov2_unchanged(dinov2: Path) -> None:
    source = Dinov2Model.from_pretrained(dinov2, dtype=torch.float32).eval()
    model = blip2.build_model(source, vocabulary=50).vision_model.eval()
    values = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = [net(pixel_values=values).last_hidden_state for net in (source, model)]
    torch.testing.assert_close(states[1], states[0], atol=1e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_timm_is_loadable(images: LabeledImages, tmp_path: Path) -> None:
    timm.train(images, STEPS, tmp_path)
    assert dimension("timm", tmp_path) == 192


@pytest.mark.slow
def test_the_same_seed_trains_the_same_weights(images: LabeledImages, tmp_path: Path) -> None:
    for run in ("first", "again"):
        (tmp_path / run).mkdir()
        torch.manual_seed(0)
        timm.train(images, STEPS, tmp_path / run)
    first, again = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("first", "again"))
    assert first == again


def test_a_caption_fits_every_image_that_agrees_in_what_it_mentions() -> None:
    labels = torch.tensor([[0, 1, 2, 3], [0, 1, 4, 3], [5, 1, 2, 3]])
    mentioned = [(True, True, False, False), (True, True, True, True), (False, False, True, False)]
    assert fitting(labels, mentioned).tolist() == [
        [True, False, True],
        [True, True, False],
        [False, False, True],
    ]


def test_the_contrastive_loss_with_one_fit_each_is_cross_entropy() -> None:
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    places = torch.arange(4)
    expected = (F.cross_entropy(logits, places) + F.cross_entropy(logits.T, places)) / 2
    torch.testing.assert_close(contrastive_loss(logits, torch.eye(4, dtype=torch.bool)), expected)


def test_the_learning_rate_warms_up_and_falls() -> None:
    schedule = Schedule(steps=1000, batch_size=1, learning_rate=1.0, warm_up_steps=10)
    rates = [schedule.rate(step) for step in (0, 9, 500, 999)]
    assert rates[0] < 0.2
    assert rates[1] == max(rates)
    assert rates[3] < 0.02 < rates[2] < rates[1]


@pytest.mark.parametrize(("given", "steps"), [([], 7), (["--large"], 5), (["--large", "--steps", "3"], 3)])
def test_the_larger_model_has_steps_of_its_own(given: list[str], steps: int) -> None:
    training = options("", 7, ["--out", "x", *given], large_steps=5)
    assert (training.steps, training.large) == (steps, "--large" in given)


@pytest.mark.slow
def test_a_command_saves_judges_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "timm"
    timm.main(["--out", str(out), "--steps", "1", "--images", "64", "--held-out", "1"])
    assert (out / "model.safetensors").is_file()
    printed = capsys.readouterr().out
    assert "drew 64 + 500 images" in printed
    assert "P@10 image to image: 0." in printed
