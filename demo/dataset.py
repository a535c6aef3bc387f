"""Seeded pictures with labels, to train the demo's models and to judge them."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.garments import draw
from demo.looks import BACKGROUNDS, Look, split_garments

INPUT_SIZE = 64
"""Width and height in pixels of what the demo's models see."""

_DRAWN_SIZE = 128
_TRAINING, _HELD_OUT = 1, 2


@dataclass(frozen=True, slots=True)
class LabelledPictures:
    """Pictures, uint8 RGB of shape (n, 64, 64, 3), and the looks that they show."""

    pixels: NDArray[np.uint8]
    looks: list[Look]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Places of type, colour, pattern and background in their vocabularies, shape (n, 4)."""
        return np.array([look.labels for look in self.looks], np.int64).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.looks)


def training_pictures(count: int, seed: int = 0, processes: int = 2) -> LabelledPictures:
    """Draw random garments; those that are never trained do not occur."""
    trained, _ = split_garments()
    rng = np.random.default_rng((seed, _TRAINING))
    chosen = [trained[place] for place in rng.integers(len(trained), size=count)]
    return _draw_all(chosen, (seed, _TRAINING), processes)


def held_out_pictures(a_garment: int = 20, seed: int = 0, processes: int = 2) -> LabelledPictures:
    """Draw `a_garment` new pictures of each of the 500 garments, first those that were trained."""
    trained, never_trained = split_garments()
    chosen = [garment for garment in trained + never_trained for _ in range(a_garment)]
    return _draw_all(chosen, (seed, _HELD_OUT), processes)


def _draw_all(
    chosen: Sequence[tuple[str, str, str]], entropy: tuple[int, int], processes: int
) -> LabelledPictures:
    behind = np.random.default_rng((*entropy, 0)).integers(len(BACKGROUNDS), size=len(chosen))
    looks = [Look(*garment, BACKGROUNDS[place]) for garment, place in zip(chosen, behind, strict=True)]
    one = partial(_draw_one, entropy)
    if processes < 2:
        pixels = [one(numbered) for numbered in enumerate(looks)]
    else:
        # Spawned processes would import the training command, and torch with it, once more each.
        with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
            pixels = list(pool.map(one, enumerate(looks), chunksize=256))
    return LabelledPictures(np.stack(pixels), looks)


def _draw_one(entropy: tuple[int, int], numbered: tuple[int, Look]) -> NDArray[np.uint8]:
    number, look = numbered
    item, view = np.random.SeedSequence((*entropy, 1, number)), np.random.SeedSequence((*entropy, 2, number))
    # Drawn larger and reduced, as an encoder reduces the catalogue's pictures.
    picture = draw(look, _DRAWN_SIZE, item, view)
    return np.asarray(picture.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC))
