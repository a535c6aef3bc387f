"""A shop over HTTP with everything in this process, and the images of its products."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from PIL import Image

from core.errors import UnsupportedModality
from core.types import Encoded, EncoderInfo, EncoderInput
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service


class ShopEncoder(LocalEncoder):
    """One that counts its calls, may be slow, and may take images only."""

    calls = 0
    delay_s = 0.0
    takes_text = True

    async def describe(self) -> EncoderInfo:
        info = await super().describe()
        return info if self.takes_text else replace(info, modalities=("image",))

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        self.calls += 1
        await asyncio.sleep(self.delay_s)
        encoded = await super().encode(inputs)
        refusal = UnsupportedModality(f"model {self.name!r} cannot encode texts")
        answers = zip(inputs, encoded.vectors, strict=True)
        return replace(
            encoded,
            vectors=[
                refusal if isinstance(each, str) and not self.takes_text else vector
                for each, vector in answers
            ],
        )


@dataclass
class Shop:
    app: FastAPI
    client: httpx.AsyncClient
    encoders: dict[str, ShopEncoder]

    async def put(self, product_id: str, *images: bytes, **body: Any) -> list[str]:
        """Store a product; returns the ids of its images."""
        files = [b64(data) for data in images]
        answer = await self.client.put(f"/v1/products/{product_id}", json={"images": files, **body})
        assert answer.status_code in (200, 201), answer.text
        return [image["image_id"] for image in answer.json()["product"]["images"]]

    async def ask(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content

    async def search(self, **body: Any) -> dict[str, Any]:
        return await self.ask("/v1/search", **body)


@asynccontextmanager
async def open_shop(
    folder: Path, names: Iterable[str] = ("first", "second"), **settings: Any
) -> AsyncIterator[Shop]:
    encoders = {name: ShopEncoder(name) for name in names}
    with local_service(folder, encoders, **settings) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Shop(app, client, encoders)


def png(*colors: str) -> bytes:
    """Stripes side by side, from the left."""
    image = Image.new("RGB", (40 * len(colors), 40))
    for place, color in enumerate(colors):
        image.paste(Image.new("RGB", (40, 40), color), (40 * place, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image_part(data: bytes, **more: Any) -> dict[str, Any]:
    return {"type": "image", "image": b64(data), **more}


def ids(answer: dict[str, Any]) -> list[str]:
    return [result["product_id"] for result in answer["results"]]
