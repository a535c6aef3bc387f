"""Batches of the size that the device has memory for."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import ModelUnavailable

Batch = TypeVar("Batch", NDArray[np.uint8], Sequence[str])
Answer = TypeVar("Answer")


class Chunks:
    """Runs a model on at most `size` inputs at a time; half as many once GPU memory did not suffice."""

    def __init__(self, model: str, size: int) -> None:
        self._model = model
        self.size = size

    def run(self, forward: Callable[[Batch], Answer], inputs: Batch) -> list[Answer]:
        """Run all inputs, in order; an answer a chunk.

        Raises:
            ModelUnavailable: the device has no memory for even one input.
        """
        answers: list[Answer] = []
        start = 0
        while start < len(inputs):
            chunk = inputs[start : start + self.size]
            try:
                answers.append(forward(chunk))
            except torch.OutOfMemoryError as error:
                if len(chunk) == 1:
                    raise ModelUnavailable(
                        f"{self._model} has not enough GPU memory for one input"
                    ) from error
                self.size = len(chunk) // 2
            else:
                start += len(chunk)
                continue
            # Not where the error is handled: its traceback holds what the failed pass had allocated.
            torch.cuda.empty_cache()
        return answers
