"""A server of embeddings as LitServe's documentation shows one: `python litserve_server.py DIRECTORY PORT`.

It runs in LitServe's own environment, and imports nothing of Vitrine.
"""

import base64
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litserve  # type: ignore[import-not-found, unused-ignore]
import torch
from PIL import Image
from torchvision import transforms
from transformers import CLIPImageProcessor, CLIPModel

MAX_BATCH_SIZE, BATCH_WAIT_S, DECODE_THREADS = 32, 0.002, 4


class Embeddings(litserve.LitAPI):  # type: ignore[misc, no-any-unimported, unused-ignore]
    """Embeds the images of a request in OpenAI's shape; requests that wait are batched."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self._model = CLIPModel.from_pretrained(sys.argv[1]).eval().to(device)
        settings = CLIPImageProcessor.from_pretrained(sys.argv[1])
        self._transform = transforms.Compose(
            [
                transforms.Resize(
                    settings.size["shortest_edge"], interpolation=transforms.InterpolationMode.BICUBIC
                ),
                transforms.CenterCrop(settings.crop_size["height"]),
                transforms.ToTensor(),
                transforms.Normalize(settings.image_mean, settings.image_std),
            ]
        )
        self._decoders = ThreadPoolExecutor(DECODE_THREADS)

    def decode_request(self, request: dict[str, Any]) -> list[str]:
        """Read the data URIs."""
        return list(request["input"])

    def predict(self, requests: list[list[str]]) -> list[list[list[float]]]:
        """Embed the images of several requests as one batch."""
        uris = [uri for each in requests for uri in each]
        pixels = torch.stack(list(self._decoders.map(self._decode, uris)))
        with torch.inference_mode():
            features = self._model.get_image_features(pixel_values=pixels)
            # A tensor in transformers 4, and an output that holds it in transformers 5.
            features = getattr(features, "pooler_output", features)
        vectors = iter(torch.nn.functional.normalize(features).tolist())
        return [[next(vectors) for _ in each] for each in requests]

    def encode_response(self, output: list[list[float]]) -> dict[str, Any]:
        """Answer as OpenAI does."""
        return {"data": [{"index": index, "embedding": each} for index, each in enumerate(output)]}

    def _decode(self, uri: str) -> torch.Tensor:
        data = base64.b64decode(uri.partition(",")[2])
        pixels: torch.Tensor = self._transform(Image.open(io.BytesIO(data)).convert("RGB"))
        return pixels


if __name__ == "__main__":
    api = Embeddings(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_WAIT_S, api_path="/v1/embeddings")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
