"""Parts that all training commands share: options, images, time, and precision at 10 of the result."""

import argparse
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich import print as say

from core.errors import VitrineError
from core.types import Vector
from demo.garments import BACKGROUNDS, Design, caption, split_garments
from demo.training.dataset import LabeledImages, held_out_images, training_images
from models.config import EncoderConfig, Family
from models.encoder import Encoder, load_encoder

_QUERIES = 1000
_BATCH = 250
SEED = 0


def precision_table(encoder: Encoder, gallery: LabeledImages, k: int = 10) -> dict[str, float]:
    """Compute precision at `k` by kind of query; relevant is the same type, color and pattern.

    Encoders with a text tower are also queried by text, for trained and for held-out garments. An image never
    counts as its own result.
    """
    images = embed_images(encoder, [_png(pixels) for pixels in gallery.pixels])
    table = {}
    if "text" in encoder.info.modalities:
        for kind, garments in zip(("trained", "never trained"), split_garments(), strict=True):
            designs = [Design(*garment, BACKGROUNDS[0]) for garment in garments]
            texts = embed_texts(encoder, [caption(design) for design in designs])
            table[f"text to image, {kind}"] = _precision(texts @ images.T, designs, gallery.designs, k)
    chosen = np.random.default_rng(0).permutation(len(gallery))[:_QUERIES]
    scores = images[chosen] @ images.T
    scores[np.arange(len(chosen)), chosen] = -np.inf
    table["image to image"] = _precision(scores, [gallery.designs[i] for i in chosen], gallery.designs, k)
    return table


def embed_images(encoder: Encoder, files: Sequence[bytes]) -> NDArray[np.float32]:
    """Embed image files through the encoder's own decoding; unit rows of shape (n, dimension)."""
    rows = []
    for start in range(0, len(files), _BATCH):
        batch = [encoder.decode(data) for data in files[start : start + _BATCH]]
        rows.append(_stacked(encoder.encode_images(batch)))
    return np.concatenate(rows)


def embed_texts(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed texts; unit rows of shape (n, dimension)."""
    return _stacked(encoder.encode_texts(texts))


def _precision(
    scores: NDArray[np.float32], asked: Sequence[Design], found: Sequence[Design], k: int
) -> float:
    best = np.argpartition(-scores, k, axis=1)[:, :k]
    hits = [asked[row].garment == found[place].garment for row, places in enumerate(best) for place in places]
    return float(np.mean(hits))


def _stacked(answers: Sequence[Vector | VitrineError]) -> NDArray[np.float32]:
    for answer in answers:
        if isinstance(answer, VitrineError):
            raise answer
    return np.stack([np.asarray(answer, np.float32) for answer in answers])


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class Training:
    """One run: where the checkpoint goes, how many steps, on how many images."""

    out: Path
    steps: int
    images: int
    held_out: int
    threads: int
    large: bool = False
    base: Path | None = None
    """Checkpoint that the training continues."""


def options(
    description: str,
    steps: int,
    arguments: list[str] | None = None,
    images: int = 24_000,
    large_steps: int | None = None,
    base: bool = False,
) -> Training:
    """Read the command line; `steps` and `images` are the defaults, `large_steps` those of `--large`.

    With `base`, the command asks for the checkpoint that it continues.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--steps", type=int, help=f"optimizer steps (default {steps})")
    if base:
        parser.add_argument("--base", type=Path, required=True, help="checkpoint to continue")
    if large_steps is not None:
        parser.add_argument("--large", action="store_true", help=f"larger model, {large_steps} steps")
    parser.add_argument("--images", type=int, default=images, help="to train on (default %(default)s)")
    parser.add_argument(
        "--held-out", type=int, default=20, help="to judge by, a garment (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    found = Training(**vars(parser.parse_args(arguments)))
    default = large_steps if found.large and large_steps is not None else steps
    return replace(found, steps=found.steps or default)


def run(training: Training, family: Family, train: Callable[[LabeledImages, int], None]) -> None:
    """Draw the images, train, and judge what was saved through the encoder that serves it.

    `train` takes the images and the number of steps and saves the checkpoint in `training.out`.
    """
    torch.set_num_threads(training.threads)
    torch.manual_seed(SEED)
    training.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    # Both before torch starts its threads, which a forked process would not have.
    images = training_images(training.images, SEED)
    gallery = held_out_images(training.held_out, SEED)
    say(f"drew {len(images)} + {len(gallery)} images in {time.monotonic() - started:.0f} s")
    started = time.monotonic()
    train(images, training.steps)
    say(f"trained {training.steps} steps in {time.monotonic() - started:.0f} s on {training.threads} threads")
    config = EncoderConfig(name=family, family=family, checkpoint=str(training.out), device="cpu")
    for kind, value in precision_table(load_encoder(config), gallery).items():
        say(f"P@10 {kind}: {value:.3f}")
