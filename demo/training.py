"""What every training command does around its model: options, pictures, time, and the measured result."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import print as say

from demo.dataset import LabelledPictures, held_out_pictures, training_pictures
from demo.retrieval import precision_table
from models.config import EncoderConfig, Family
from models.registry import load_encoder

SEED = 0


@dataclass(frozen=True, slots=True)
class Training:
    """One run: where the checkpoint goes, how many steps, on how many pictures."""

    out: Path
    steps: int
    pictures: int
    held_out: int
    threads: int


def options(
    description: str, steps: int, arguments: list[str] | None = None, pictures: int = 24_000
) -> Training:
    """Read the command line; `steps` and `pictures` are the defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--steps", type=int, default=steps, help="optimiser steps (default %(default)s)")
    parser.add_argument("--pictures", type=int, default=pictures, help="to train on (default %(default)s)")
    parser.add_argument(
        "--held-out", type=int, default=20, help="to judge by, a garment (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    return Training(**vars(parser.parse_args(arguments)))


def run(training: Training, family: Family, train: Callable[[LabelledPictures, int], None]) -> None:
    """Draw the pictures, train, and judge what was saved through the encoder that serves it.

    `train` takes the pictures and the number of steps and saves the checkpoint in `training.out`.
    """
    torch.set_num_threads(training.threads)
    torch.manual_seed(SEED)
    training.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    # Both before torch starts its threads, which a forked process would not have.
    pictures = training_pictures(training.pictures, SEED)
    gallery = held_out_pictures(training.held_out, SEED)
    say(f"drew {len(pictures)} + {len(gallery)} pictures in {time.monotonic() - started:.0f} s")
    started = time.monotonic()
    train(pictures, training.steps)
    say(f"trained {training.steps} steps in {time.monotonic() - started:.0f} s on {training.threads} threads")
    config = EncoderConfig(name=family, family=family, checkpoint=str(training.out), device="cpu")
    for kind, value in precision_table(load_encoder(config), gallery).items():
        say(f"P@10 {kind}: {value:.3f}")
