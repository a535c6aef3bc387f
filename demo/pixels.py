"""From stored pictures to a model's values."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(
    pixels: NDArray[np.uint8], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """uint8 RGB (n, h, w, 3) to float32 (n, 3, h, w), scaled to [0, 1], less the mean, over the deviation."""
    values = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    return (values - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def augmented(values: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror the batch half of the time and shift it by up to four pixels."""
    if rng.random() < 0.5:
        values = values.flip(3)
    down, right = (int(shift) for shift in rng.integers(-4, 5, 2))
    return torch.roll(values, (down, right), (2, 3))
