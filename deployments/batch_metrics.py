"""What a model's batches tell: their size, how long they waited and ran, and spans of the inputs."""

import asyncio
from collections.abc import Iterable
from typing import Literal

from deployments.metrics import BATCH_SIZE, ERRORS, STAGE_SECONDS
from deployments.telemetry import error_type
from deployments.tracing import past_span


class BatchMetrics:
    """Implements `BatchWatch` for the batches of one kind of input; one metric a batch, not one an input."""

    def __init__(self, model: str, input: Literal["image", "text", "caption"]) -> None:
        self._model, self._input = model, input

    def batch(self, size: int, since_s: float, begun_s: float, ended_s: float) -> None:
        """Count a batch."""
        BATCH_SIZE.observe(size, model=self._model, input=self._input)
        STAGE_SECONDS.observe(begun_s - since_s, stage="queue", model=self._model)
        STAGE_SECONDS.observe(ended_s - begun_s, stage="forward", model=self._model)

    def item(self, since_s: float, begun_s: float, ended_s: float) -> None:
        """Make the spans of an input, where its request is traced."""
        now_s = asyncio.get_running_loop().time()
        past_span("queue", since_s, begun_s, now_s, **{"vitrine.model": self._model})
        past_span("forward", begun_s, ended_s, now_s, **{"vitrine.model": self._model})

    def errors(self, answers: Iterable[object]) -> None:
        """Count those inputs that the model could not take, by the type of the error."""
        for answer in answers:
            if isinstance(answer, Exception):
                ERRORS.add(stage="forward", model=self._model, type=error_type(answer))
