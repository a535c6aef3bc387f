"""BLIP-2 in 8 bit against float32, on the widths of its real vision tower and Q-Former."""

import gc
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Blip2Config, Blip2ForImageTextRetrieval, BlipImageProcessor

from benchmarks.images import small_jpegs
from core.types import Vector
from demo.service import WEIGHTS
from models.blip2 import IN_FULL
from models.config import EncoderConfig, Precision
from models.device import place
from models.encoder import load_encoder
from models.huggingface import load_model

VISION_LAYERS = 4
QFORMER_LAYERS = 2
IMAGES = 8


@dataclass(frozen=True, slots=True)
class EightBit:
    """The least cosine of the vectors, and the memory of the weights in MiB."""

    cosine_min: float
    fp32_mib: float
    int8_mib: float


def eight_bit(scratch: Path) -> EightBit:
    """Compare a retrieval model of ViT-g's width (1408) with random weights, a few of its layers."""
    directory = _write_checkpoint(scratch / "blip2")
    vectors, sizes = [], []
    precisions: tuple[Precision, Precision] = ("fp32", "int8")
    for precision in precisions:
        config = EncoderConfig(
            name="wide", family="blip2", checkpoint=str(directory), precision=precision, device="cpu"
        )
        vectors.append(_embed(config))
        model = load_model(Blip2ForImageTextRetrieval, directory, place(config), in_full=IN_FULL)
        sizes.append(model.get_memory_footprint() / 2**20)
        del model
        gc.collect()
    return EightBit(float((vectors[0] * vectors[1]).sum(axis=1).min()), sizes[0], sizes[1])


def _embed(config: EncoderConfig) -> Vector:
    encoder = load_encoder(config)
    pixels = [encoder.decode(data) for data in small_jpegs(IMAGES)]
    return np.stack([np.asarray(vector) for vector in encoder.encode_images(pixels)])


def _write_checkpoint(directory: Path) -> Path:
    torch.manual_seed(0)
    config = Blip2Config(
        vision_config={"num_hidden_layers": VISION_LAYERS},
        qformer_config={
            "num_hidden_layers": QFORMER_LAYERS,
            "vocab_size": 44,
            "use_qformer_text_input": True,
        },
        image_text_hidden_size=256,
    )
    model = Blip2ForImageTextRetrieval(config)
    for parameter in model.parameters():
        # The library's own random weights are so small that every image gets the same vector.
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    torch.nn.init.normal_(model.query_tokens, std=0.02)
    model.save_pretrained(directory)
    BlipImageProcessor(size={"height": 224, "width": 224}).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(WEIGHTS / "blip2" / name, directory / name)
    return directory
