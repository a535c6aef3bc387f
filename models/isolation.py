"""A batch that fails as a whole, halved until the input that breaks it stands alone."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from core.errors import InvalidInput, ModelUnavailable, VitrineError
from core.types import Vector

Input = TypeVar("Input")
_log = logging.getLogger(__name__)


def embed_each(
    embed: Callable[[Sequence[Input]], list[Vector | VitrineError]],
    inputs: Sequence[Input],
    is_healthy: Callable[[], bool],
) -> list[Vector | VitrineError]:
    """Embed all inputs, in order; one that makes `embed` raise costs only its own answer.

    An input that fails alone is InvalidInput when `is_healthy` says that the model still works, so that
    a broken device is never blamed on the pictures: then every answer that is missing is
    ModelUnavailable, and the batch is not split further.
    """
    try:
        return embed(inputs)
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
            *embed_each(embed, inputs[:middle], is_healthy),
            *embed_each(embed, inputs[middle:], is_healthy),
        ]
