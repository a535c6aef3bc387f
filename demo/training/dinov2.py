"""Command that trains the demo's DINOv2 models: `python -m demo.training.dinov2 --out DIR [--large]`.

Like DINOv2 it takes images only. Unlike DINOv2 it learns from labels: self-supervision needs far more images
and time than a demo has.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from demo.training.command import SEED, options, run
from demo.training.dataset import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INPUT_SIZE,
    LabeledImages,
    augmented,
    normalized,
)
from demo.training.optimization import AttributeHeads, Schedule, optimize

_PATCH = 8
_PATCHES_ACROSS = INPUT_SIZE // _PATCH
# No loss for the background: any share of it separates similar garments.
_ATTRIBUTE_WEIGHTS = (2.0, 1.0, 1.3, 0.0)
# A transformer memorizes a quarter of these: precision at 10 was 0.74 with 24,000 and is 0.89 with 96,000.
_IMAGES = 96_000
_SPARSE_UNTIL = 0.6
_FEATURE_LENGTH = 10.0


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of the transformer; `width` is the dimension of its vectors and a multiple of 4 and of `heads`."""

    width: int
    layers: int
    heads: int


SMALL = Shape(width=96, layers=4, heads=3)
LARGE = Shape(width=144, layers=5, heads=4)


def build_model(shape: Shape) -> Dinov2Model:
    """Build a DINOv2 with fresh weights; its learnable position table starts from sines and cosines."""
    model = Dinov2Model(
        Dinov2Config(
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            mlp_ratio=4,
            image_size=INPUT_SIZE,
            patch_size=_PATCH,
            layerscale_value=1.0,
        )
    )
    with torch.no_grad():
        model.embeddings.position_embeddings[0, 1:] = 0.5 * _position_table(shape.width)
    return model


def train(images: LabeledImages, steps: int, out: Path, shape: Shape = SMALL) -> None:
    """Train from scratch to classify the attributes, and save without the classifiers."""
    model, heads = build_model(shape).train(), AttributeHeads(shape.width, _ATTRIBUTE_WEIGHTS)
    rng, labels = np.random.default_rng(SEED), torch.from_numpy(images.labels)

    def objective(batch: NDArray[np.int64], progress: float) -> Tensor:
        values = augmented(normalized(images.pixels[batch], IMAGENET_MEAN, IMAGENET_STD), rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = _class_token(model, values, sparse=progress < _SPARSE_UNTIL).float()
        # Attributes must differ in direction alone: a search compares nothing else.
        loss: Tensor = heads(_FEATURE_LENGTH * F.normalize(features, dim=-1), labels[batch])
        return loss

    parameters = [*model.parameters(), *heads.parameters()]
    optimize(objective, parameters, Schedule(steps, 64, 1e-3), len(images), SEED)
    save(model, out)


def save(model: Dinov2Model, out: Path) -> None:
    """Write what transformers' AutoModel and AutoImageProcessor read, weights as fp16."""
    model.half().save_pretrained(out)
    BitImageProcessor(
        size={"shortest_edge": INPUT_SIZE},
        resample=3,
        crop_size={"height": INPUT_SIZE, "width": INPUT_SIZE},
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    ).save_pretrained(out)


def _class_token(model: Dinov2Model, values: Tensor, sparse: bool) -> Tensor:
    """The normalized state of the class token; `sparse` drops a random half of the patches.

    Half the patches take half the time and teach nearly as much (arXiv 2212.00794).
    """
    states = model.embeddings(values)
    if sparse:
        kept = torch.rand(states.shape[0], states.shape[1] - 1).argsort(1)[:, : _PATCHES_ACROSS**2 // 2] + 1
        patches = states.gather(1, kept[..., None].expand(-1, -1, states.shape[2]))
        states = torch.cat([states[:, :1], patches], 1)
    normed: Tensor = model.layernorm(model.encoder(states).last_hidden_state)
    return normed[:, 0]


def _position_table(width: int) -> Tensor:
    """Compute sines and cosines of the patches' columns and rows, shape (patches, width)."""
    rows, columns = torch.meshgrid(
        torch.arange(_PATCHES_ACROSS), torch.arange(_PATCHES_ACROSS), indexing="ij"
    )
    frequencies = 1e4 ** -(torch.arange(width // 4) / (width // 4)) * torch.pi / 2
    angles = [places.reshape(-1, 1) * frequencies for places in (columns, rows)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)


def main(arguments: list[str] | None = None) -> None:
    """Train, save and judge."""
    training = options("Train a DINOv2 model for the demo.", 7000, arguments, _IMAGES, large_steps=5000)
    shape = LARGE if training.large else SMALL
    run(training, "dinov2", lambda images, steps: train(images, steps, training.out, shape))


if __name__ == "__main__":
    main()
