"""8 bit on the real widths of BLIP-2's vision tower (ViT-g: 1408 wide, 6144 inside), two layers of it."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Blip2Config, Blip2ForImageTextRetrieval, BlipImageProcessor

from models import blip2
from models.config import EncoderConfig, Precision
from models.device import place
from models.encoder import load_encoder
from models.huggingface import load_model
from tests.support.checkpoints import DEMO
from tests.support.image_files import file, smooth

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    torch.manual_seed(0)
    config = Blip2Config(
        vision_config={"num_hidden_layers": 2, "image_size": 112},
        qformer_config={"num_hidden_layers": 1, "vocab_size": 44, "use_qformer_text_input": True},
        image_text_hidden_size=256,
    )
    model = Blip2ForImageTextRetrieval(config)
    for parameter in (*model.parameters(),):
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    torch.nn.init.normal_(model.query_tokens, std=0.02)
    directory = tmp_path_factory.mktemp("wide")
    model.save_pretrained(directory)
    BlipImageProcessor(size={"height": 112, "width": 112}).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DEMO / "blip2" / name, directory / name)
    yield directory
    shutil.rmtree(directory)


def config(directory: Path, precision: Precision) -> EncoderConfig:
    return EncoderConfig(
        name="wide", family="blip2", checkpoint=str(directory), precision=precision, device="cpu", draft=False
    )


def test_vectors_stay_close(wide: Path) -> None:
    embedded = []
    for precision in ("fp32", "int8"):
        encoder = load_encoder(config(wide, precision))
        pixels = [encoder.decode(file(smooth(200 + seed, 150, seed))) for seed in range(4)]
        embedded.append(np.stack([np.asarray(vector) for vector in encoder.encode_images(pixels)]))
        del encoder
        gc.collect()
    cosine = float((embedded[0] * embedded[1]).sum(axis=1).min())
    print(f"int8_cosine_min {cosine:.5f}")
    assert cosine >= 0.99


def test_memory_shrinks_to_little_more_than_a_quarter(wide: Path) -> None:
    sizes = []
    for precision in ("fp32", "int8"):
        placement = place(config(wide, precision))
        model = load_model(Blip2ForImageTextRetrieval, wide, placement, in_full=blip2.IN_FULL)
        sizes.append(model.get_memory_footprint())
    print(f"int8_memory_ratio {sizes[1] / sizes[0]:.3f}")
    assert sizes[1] <= 0.36 * sizes[0]
