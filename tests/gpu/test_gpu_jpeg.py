"""JPEG files decoded on a GPU give nearly the vectors of those that a CPU decodes."""

import numpy as np
import pytest
import torch

from models.config import EncoderConfig
from models.encoder import load_encoder
from tests.support.checkpoints import DEMO
from tests.support.image_files import file, photograph

pytest.importorskip("torchcodec.decoders", exc_type=ImportError)
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this host shows no GPU")


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("family", ["openclip", "dinov2"])
def test_vectors_of_files_that_the_gpu_decodes_are_nearly_those_of_the_cpu(
    family: str, subsampling: str
) -> None:
    encoder = load_encoder(
        EncoderConfig(
            name="tested",
            family=family,  # type: ignore[arg-type]
            checkpoint=str(DEMO / family),
            device="cuda",
            precision="fp32",
            decode_on_gpu=True,
        )
    )
    sizes = [(800, 600), (1201, 901), (2000, 1500), (571, 385)]
    files = [
        file(photograph(*size, seed), "JPEG", quality=90, subsampling=subsampling)
        for seed, size in enumerate(sizes)
    ]
    assert encoder.gpu_jpegs is not None
    on_gpu = [pixels for pixels in encoder.gpu_jpegs(files) if pixels is not None]
    assert len(on_gpu) == len(files)
    there, here = (
        encoder.encode_images(images) for images in (on_gpu, [encoder.decode(data) for data in files])
    )
    cosines = [float(np.asarray(a) @ np.asarray(b)) for a, b in zip(there, here, strict=True)]
    assert min(cosines) >= 0.998, cosines
