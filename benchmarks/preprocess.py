"""A 12-megapixel JPEG to model input: ours against Pillow's full decode and the library's transform."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from benchmarks.bare import median
from benchmarks.images import camera_jpeg
from models.images import ImageLimits, decoding
from models.openclip import preprocessing

SIDE = 224


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """Milliseconds an image for both ways, the median ratio, and the cosine between their tensors."""

    ours_ms: float
    full_ms: float
    ratio: float
    cosine: float


def preprocess_over_full(rounds: int) -> Preprocessed:
    """Run both ways in turns on one thread; the ratio is that of neighboring runs."""
    torch.set_num_threads(1)
    data = camera_jpeg()
    settings = PreprocessCfg(size=SIDE)
    ours, theirs = preprocessing(vars(settings)), image_transform_v2(settings, is_train=False)

    def fast() -> torch.Tensor:
        with decoding(data, ImageLimits(), target=SIDE) as decoded:
            pixels = ours.apply(decoded.image, (decoded.height, decoded.width))
        return ours.normalize(torch.from_numpy(pixels)[None], torch.float32)[0]

    def full() -> torch.Tensor:
        values: torch.Tensor = theirs(Image.open(io.BytesIO(data)))
        return values

    cosine = float(torch.nn.functional.cosine_similarity(fast().ravel(), full().ravel(), dim=0))
    pairs = np.array([(_ms(fast), _ms(full)) for _ in range(rounds)])
    return Preprocessed(
        ours_ms=median(pairs[:, 0].tolist()),
        full_ms=median(pairs[:, 1].tolist()),
        ratio=median((pairs[:, 0] / pairs[:, 1]).tolist()),
        cosine=cosine,
    )


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3
