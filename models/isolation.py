"""A batch that fails as a whole, halved until the input that breaks it stands alone."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from core.errors import ModelUnavailable, VitrineError, expected

Input = TypeVar("Input")
Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


def answer_each(
    answer: Callable[[Sequence[Input]], list[Answer | VitrineError]],
    inputs: Sequence[Input],
    is_healthy: Callable[[], bool],
) -> list[Answer | VitrineError]:
    """Answer all inputs, in order; one that makes `answer` raise costs only its own answer.

    Inputs are pixels of one shape and type, or texts: whatever is wrong with a file was found when it was decoded.
    So an input that fails alone, while `is_healthy` says that the model still works, has met a bug: its answer is
    Internal, and the log holds the traceback. A broken device is never blamed on the inputs: then every answer
    that is missing is ModelUnavailable, and the batch is not split further.
    """
    try:
        return answer(inputs)
    except (ModelUnavailable, MemoryError) as error:
        lack = (
            error if isinstance(error, ModelUnavailable) else ModelUnavailable("no memory left for the model")
        )
        return [lack for _ in inputs]
    except Exception as error:  # the libraries below raise what they like, and neighbours must not suffer
        if not is_healthy():
            _log.exception("a batch of %d failed, and so does the model", len(inputs))
            return [ModelUnavailable("the encoder fails on every input") for _ in inputs]
        if len(inputs) == 1:
            return [expected(error, "encoding this input")]
    middle = len(inputs) // 2
    return [
        *answer_each(answer, inputs[:middle], is_healthy),
        *answer_each(answer, inputs[middle:], is_healthy),
    ]
