"""The encoders on a GPU: the same vectors as on the CPU, compiled or not."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.config import EncoderConfig
from models.encoder import load_encoder
from tests.support.checkpoints import DEMO
from tests.support.image_files import file, smooth

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this host shows no GPU")

IMAGES = [file(smooth(80 + seed, 120, seed)) for seed in range(11)]


def vectors(family: str, **settings: Any) -> np.ndarray:
    checkpoint = str(Path(DEMO / family))
    encoder = load_encoder(EncoderConfig(name="tested", family=family, checkpoint=checkpoint, **settings))  # type: ignore[arg-type]
    answers = encoder.encode_images([encoder.decode(image) for image in IMAGES])
    return np.stack([np.asarray(answer) for answer in answers])


@pytest.mark.parametrize("family", ["openclip", "dinov2", "blip2"])
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("bf16", 0.995), ("fp16", 0.999)])
def test_the_device_does_not_move_a_vector(family: str, precision: str, least: float) -> None:
    on_cpu = vectors(family, device="cpu")
    on_gpu = vectors(family, device="cuda", precision=precision)
    assert (on_cpu * on_gpu).sum(axis=1).min() >= least


@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_eight_bit_stays_close(threshold: float) -> None:
    on_gpu = vectors("blip2", device="cuda", precision="int8", int8_threshold=threshold)
    assert (vectors("blip2", device="cpu") * on_gpu).sum(axis=1).min() >= 0.99


def test_a_compiled_tower_answers_in_a_replicas_own_thread_at_every_size() -> None:
    config = EncoderConfig(
        name="tested",
        family="dinov2",
        checkpoint=str(DEMO / "dinov2"),
        device="cuda",
        precision="fp32",
        compile=True,
        max_batch_size=32,
    )
    eager = load_encoder(config.model_copy(update={"compile": False}))
    pixels = [eager.decode(image) for image in IMAGES]
    with ThreadPoolExecutor(1) as thread:
        compiled = thread.submit(load_encoder, config).result()
        for count in (1, 3, 11, 1, 11):
            answers = thread.submit(compiled.encode_images, pixels[:count]).result()
            expected = np.stack([np.asarray(answer) for answer in eager.encode_images(pixels[:count])])
            assert (np.stack([np.asarray(a) for a in answers]) * expected).sum(axis=1).min() >= 0.9999


def test_attention_runs_without_its_plain_form() -> None:
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        vectors("dinov2", device="cuda", precision="bf16")


@pytest.mark.parametrize("family", ["openclip", "dinov2"])
def test_a_compiled_tower_with_padded_batches_gives_the_same(family: str) -> None:
    eager = vectors(family, device="cuda", precision="fp32")
    compiled = vectors(family, device="cuda", precision="fp32", compile=True, max_batch_size=8)
    assert (eager * compiled).sum(axis=1).min() >= 0.9999
