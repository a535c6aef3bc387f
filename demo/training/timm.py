"""Command that trains the demo's timm model: `python -m demo.training.timm --out DIR`.

A narrow ResNet whose losses weigh color and print above shape, so that it errs elsewhere
than the transformers do.
"""

from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.models import save_for_hf
from torch import Tensor, nn

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

_ATTRIBUTE_WEIGHTS = (0.3, 1.0, 1.0, 0.1)


def build_model() -> nn.Module:
    """Build timm's ResNet-18 with one narrow block a stage, 192-d, without a classifier."""
    # In place of the description of the published ResNet-18, whose license and paper are not this one's.
    description = {
        "architecture": "resnet18",
        "tag": "vitrine_demo",
        "first_conv": "conv1",
        "classifier": "fc",
        "input_size": (3, INPUT_SIZE, INPUT_SIZE),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
    }
    narrow = {"layers": (1, 1, 1, 1), "channels": (24, 48, 96, 192), "stem_width": 24}
    model: nn.Module = timm.create_model("resnet18", pretrained_cfg=description, num_classes=0, **narrow)
    return model


def train(images: LabeledImages, steps: int, out: Path) -> None:
    """Train from scratch to classify the attributes, and save without the classifiers."""
    model = build_model().to(memory_format=torch.channels_last).train()
    heads = AttributeHeads(192, _ATTRIBUTE_WEIGHTS)
    rng, labels = np.random.default_rng(SEED), torch.from_numpy(images.labels)

    def objective(batch: NDArray[np.int64], _progress: float) -> Tensor:
        values = augmented(normalized(images.pixels[batch], IMAGENET_MEAN, IMAGENET_STD), rng)
        features = model(values.contiguous(memory_format=torch.channels_last))
        loss: Tensor = heads(features, labels[batch])
        return loss

    parameters = [*model.parameters(), *heads.parameters()]
    optimize(objective, parameters, Schedule(steps, 128, 2e-3), len(images), SEED)
    save(model, out)


def save(model: nn.Module, out: Path) -> None:
    """Write what timm's `local-dir:` schema reads, weights as fp16."""
    plain = model.half().to(memory_format=torch.contiguous_format)
    save_for_hf(plain, out, safe_serialization=True)


def main(arguments: list[str] | None = None) -> None:
    """Train, save and judge."""
    training = options("Train the demo's timm model.", steps=1500, arguments=arguments)
    run(training, "timm", lambda images, steps: train(images, steps, training.out))


if __name__ == "__main__":
    main()
