"""What a family hands over: a loaded checkpoint, ready to run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from models.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class Writing:
    """A loaded language model: the model's values (n, 3, h, w) on the device to n captions.

    `files` are what the captions depend on; at most `batch_size` pictures go together.
    """

    write: Callable[[Tensor], list[str]]
    files: tuple[Path, ...]
    batch_size: int


@dataclass(frozen=True, slots=True)
class Towers:
    """A loaded checkpoint.

    `image` takes the model's values (n, 3, h, w) on the device; `text` takes words. Both give (n, dimension)
    there. `files` are what the vectors depend on, `architecture` and `pooling` how they are used.
    """

    image: Callable[[Tensor], Tensor]
    text: Callable[[Sequence[str]], Tensor] | None
    preprocessing: Preprocessing
    files: tuple[Path, ...]
    architecture: str
    pooling: str
    writing: Writing | None = None
