"""The training loop that all of the demo's models share."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich import print as say
from torch import Tensor, nn

Objective = Callable[[NDArray[np.int64], float], Tensor]
"""From the places of a batch's pictures and the progress in [0, 1) to a loss."""

_REPORT_EVERY = 200
_WEIGHT_DECAY = 0.05


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train: warm-up, then a cosine down to a hundredth."""

    steps: int
    batch_size: int
    learning_rate: float
    warm_up_steps: int = 100

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        cosine = 0.5 * (1 + np.cos(np.pi * step / self.steps)) + 0.01
        return float(self.learning_rate * min(1, (step + 1) / self.warm_up_steps) * cosine)


def optimise(
    objective: Objective, parameters: Iterable[nn.Parameter], schedule: Schedule, count: int, seed: int
) -> None:
    """Minimise the objective over `count` pictures with AdamW, reporting the mean loss as it goes."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimiser = torch.optim.AdamW(_groups(trained), betas=(0.9, 0.98))
    batches = _batches(count, schedule.batch_size, np.random.default_rng(seed))
    started, losses = time.monotonic(), []
    for step in range(schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        loss = objective(next(batches), step / schedule.steps)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
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
    """Shuffled passes over all pictures without end; the rest of a pass that fills no batch is skipped."""
    size = min(size, count)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]
