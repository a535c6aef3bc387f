"""A batch that fails as a whole, halved until the input that breaks it stands alone."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from core.errors import InvalidInput, ModelUnavailable, VitrineError

Input = TypeVar("Input")
Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


def answer_each(
    answer: Callable[[Sequence[Input]], list[Answer | VitrineError]],
    inputs: Sequence[Input],
    is_healthy: Callable[[], bool],
) -> list[Answer | VitrineError]:
    """Answer all inputs, in order; one that makes `answer` raise costs only its own answer.

    An input that fails alone is InvalidInput when `is_healthy` says that the model still works, so that
    a broken device is never blamed on the pictures: then every answer that is missing is
    ModelUnavailable, and the batch is not split further.
    """
    try:
        return answer(inputs)
    except ModelUnavailable as error:
        return [error for _ in inputs]
    except Exception as error:  # the libraries below raise what they like, and neighbours must not suffer
        _log.warning("a batch of %d failed: %s: %s", len(inputs), type(error).__name__, error)
        if not is_healthy():
            return [ModelUnavailable("the encoder fails on every input") for _ in inputs]
        if len(inputs) == 1:
            return [InvalidInput(f"the encoder fails on this input ({type(error).__name__})")]
        middle = len(inputs) // 2
        return [
            *answer_each(answer, inputs[:middle], is_healthy),
            *answer_each(answer, inputs[middle:], is_healthy),
        ]
