"""Seeded images with labels, to train and judge the demo's models, as pixels and as model input."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from demo.drawing import draw
from demo.garments import BACKGROUNDS, Design, split_garments

INPUT_SIZE = 64
"""Width and height in pixels of what the demo's models see."""

_DRAWN_SIZE = 128
_TRAINING, _HELD_OUT = 1, 2
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class LabeledImages:
    """Images, uint8 RGB of shape (n, 64, 64, 3), and the designs that they show."""

    pixels: NDArray[np.uint8]
    designs: list[Design]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Places of type, color, pattern and background in their vocabularies, shape (n, 4)."""
        return np.array([design.labels for design in self.designs], np.int64).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.designs)


def training_images(count: int, seed: int = 0, processes: int = 2) -> LabeledImages:
    """Draw random garments; those that are never trained do not occur."""
    trained, _ = split_garments()
    rng = np.random.default_rng((seed, _TRAINING))
    chosen = [trained[place] for place in rng.integers(len(trained), size=count)]
    return _draw_all(chosen, (seed, _TRAINING), processes)


def held_out_images(a_garment: int = 20, seed: int = 0, processes: int = 2) -> LabeledImages:
    """Draw `a_garment` new images of each of the 500 garments, first those that were trained."""
    trained, never_trained = split_garments()
    chosen = [garment for garment in trained + never_trained for _ in range(a_garment)]
    return _draw_all(chosen, (seed, _HELD_OUT), processes)


def _draw_all(
    chosen: Sequence[tuple[str, str, str]], entropy: tuple[int, int], processes: int
) -> LabeledImages:
    behind = np.random.default_rng((*entropy, 0)).integers(len(BACKGROUNDS), size=len(chosen))
    designs = [Design(*garment, BACKGROUNDS[place]) for garment, place in zip(chosen, behind, strict=True)]
    one = partial(_draw_one, entropy)
    if processes < 2:
        pixels = [one(numbered) for numbered in enumerate(designs)]
    else:
        # Spawned processes would import the training command, and torch with it, once more each.
        with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
            pixels = list(pool.map(one, enumerate(designs), chunksize=256))
    return LabeledImages(np.stack(pixels), designs)


def _draw_one(entropy: tuple[int, int], numbered: tuple[int, Design]) -> NDArray[np.uint8]:
    number, design = numbered
    item, view = np.random.SeedSequence((*entropy, 1, number)), np.random.SeedSequence((*entropy, 2, number))
    # Drawn larger and reduced, as an encoder reduces the catalog's images.
    image = draw(design, _DRAWN_SIZE, item, view)
    return np.asarray(image.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC))


def normalized(
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
