"""Other people's clients against the whole service, over HTTP."""

import base64
import io

import numpy as np
import pytest
from openai import OpenAI
from PIL import Image

from demo.service import DemoService


def noise(seed: int) -> bytes:
    """A JPEG of some 400 kB that is like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (420, 420, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=98)
    return buffer.getvalue()


def uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def official(service: DemoService) -> OpenAI:
    return OpenAI(base_url=f"{service.base_url}/v1", api_key="unused", max_retries=0, timeout=60)


def test_the_official_client_embeds_64_large_images_and_one_fails_alone(official: OpenAI) -> None:
    images = [noise(seed) for seed in range(64)]
    # More than one call to an encoder may carry.
    assert sum(map(len, images)) > 16 * 2**20
    images[5] = images[5][:1000]
    answer = official.embeddings.create(model="openclip", input=[uri(image) for image in images])
    vectors = [item.embedding for item in answer.data]
    assert [index for index, vector in enumerate(vectors) if vector is None] == [5]
    norms = [np.linalg.norm(vector) for vector in vectors if vector is not None]
    assert norms == pytest.approx([1.0] * 63, abs=1e-4)
    again = official.embeddings.create(model="openclip", input=[uri(images[63]), "a red dress"])
    assert again.data[0].embedding == pytest.approx(vectors[63], abs=1e-3)
    # Three words, with the start and the end of the text.
    assert again.usage.prompt_tokens >= 5
