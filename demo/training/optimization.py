"""Losses and the training loop of the demo's models."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich import print as say
from torch import Tensor, nn

from demo.garments import BACKGROUNDS, COLORS, PATTERNS, TYPES, Mentioned

_REPORT_EVERY = 200
_WEIGHT_DECAY = 0.05


class AttributeHeads(nn.Module):
    """Linear classifiers of type, color, pattern and background, used in training only."""

    def __init__(self, width: int, weights: Sequence[float]) -> None:
        """`weights` of the four losses; `width` is the dimension of the features."""
        super().__init__()
        sizes = (len(TYPES), len(COLORS), len(PATTERNS), len(BACKGROUNDS))
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        self.weights = tuple(weights)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Weighted sum of the cross-entropies for features (n, width) and labels (n, 4)."""
        losses = [
            weight * F.cross_entropy(head(features), labels[:, place])
            for place, (head, weight) in enumerate(zip(self.heads, self.weights, strict=True))
        ]
        return torch.stack(losses).sum()


def fitting(labels: Tensor, mentioned: Sequence[Mentioned]) -> Tensor:
    """Compute the captions that fit each image, bool (n images, n captions).

    Caption j was made for image j; it fits every image that agrees in all attributes it mentions.
    """
    agrees = labels[:, None, :] == labels[None]
    return (agrees | ~torch.tensor(mentioned)[None]).all(-1)


def contrastive_loss(logits: Tensor, fits: Tensor) -> Tensor:
    """Cross-entropy over images and over captions against all that fit, with equal shares.

    `logits` and `fits` are (n images, n captions). With one fit each this is CLIP's loss
    (arXiv 2103.00020); several come from supervised contrastive learning (arXiv 2004.11362).
    """
    targets = fits.to(logits.dtype)
    by_image = (targets / targets.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    by_caption = (targets / targets.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return -(by_image + by_caption) / 2


Objective = Callable[[NDArray[np.int64], float], Tensor]
"""From the places of a batch's images and the progress in [0, 1) to a loss."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Length and learning rate of the training: warm-up, then a cosine down to a hundredth."""

    steps: int
    batch_size: int
    learning_rate: float
    warm_up_steps: int = 100

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        cosine = 0.5 * (1 + np.cos(np.pi * step / self.steps)) + 0.01
        return float(self.learning_rate * min(1, (step + 1) / self.warm_up_steps) * cosine)


def optimize(
    objective: Objective, parameters: Iterable[nn.Parameter], schedule: Schedule, count: int, seed: int
) -> None:
    """Minimize the objective over `count` images with AdamW, reporting the mean loss as it goes."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.AdamW(_groups(trained), betas=(0.9, 0.98))
    batches = _batches(count, schedule.batch_size, np.random.default_rng(seed))
    started, losses = time.monotonic(), []
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss = objective(next(batches), step / schedule.steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % _REPORT_EVERY == 0:
            elapsed_s = time.monotonic() - started
            say(f"step {step + 1}/{schedule.steps}: loss {np.mean(losses):.3f}, {elapsed_s:.0f} s")
            losses.clear()


def _groups(parameters: list[nn.Parameter]) -> list[dict[str, object]]:
    """Weight decay for matrices only."""
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": _WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _batches(count: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Shuffled passes over all images without end; the rest of a pass that fills no batch is skipped."""
    size = min(size, count)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]
