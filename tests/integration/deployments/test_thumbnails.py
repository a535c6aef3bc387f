"""Thumbnails over HTTP: sized, upright, tagged, made once."""

import asyncio
import io
from dataclasses import replace

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from deployments.config import ThumbnailsConfig
from deployments.services.thumbnails import Thumbnails
from models.images import ImageLimits
from tests.support.icc_profiles import of_primaries
from tests.support.image_files import file

pytestmark = pytest.mark.anyio


async def url_of(client: httpx.AsyncClient, size: tuple[int, int], orientation: int = 1) -> str:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize(size).save(buffer, "JPEG", exif=exif)
    answer = await client.put("/v1/products/p", files={"images": ("p.jpg", buffer.getvalue(), "image/jpeg")})
    assert answer.is_success, answer.text
    return f"{answer.json()['product']['images'][0]['url']}/thumbnail"


def size_of(answer: httpx.Response) -> tuple[int, int]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == "WEBP"
        return image.size


async def test_a_thumbnail_keeps_the_shape_of_the_image(client: httpx.AsyncClient) -> None:
    url = await url_of(client, (2000, 1000))
    small = await client.get(url)
    assert size_of(small) == (320, 160)
    assert "immutable" in small.headers["cache-control"]
    # A browser that has the one has not the other.
    large = await client.get(url, params={"size": "large"}, headers={"If-None-Match": small.headers["etag"]})
    assert size_of(large) == (960, 480)


async def test_a_thumbnail_stands_upright(client: httpx.AsyncClient) -> None:
    assert size_of(await client.get(await url_of(client, (2000, 1000), orientation=6))) == (160, 320)


async def test_a_thumbnail_is_in_srgb_whatever_the_profile_of_the_image(client: httpx.AsyncClient) -> None:
    primaries = ((0.5151, 0.2412, -0.0011), (0.292, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
    wide = file(Image.new("RGB", (64, 64), (200, 40, 60)), icc_profile=of_primaries(2.2, *primaries))
    answer = await client.put("/v1/products/p", files={"images": ("p.png", wide, "image/png")})
    thumbnail = await client.get(f"{answer.json()['product']['images'][0]['url']}/thumbnail")
    with Image.open(io.BytesIO(thumbnail.content)) as image:
        assert "icc_profile" not in image.info
        red, green, _ = np.asarray(image.convert("RGB"))[30, 30]
    assert red > 212
    assert green < 20


async def test_a_small_image_is_not_blown_up(client: httpx.AsyncClient) -> None:
    assert size_of(await client.get(await url_of(client, (40, 30)))) == (40, 30)


@pytest.mark.parametrize(("cache_bytes", "reads"), [(2**20, 1), (0, 2)])
async def test_a_thumbnail_is_made_once_while_it_is_kept(
    app: FastAPI, client: httpx.AsyncClient, cache_bytes: int, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await url_of(client, (600, 600))
    catalog = app.state.services.catalog
    config = ThumbnailsConfig(cache_bytes=cache_bytes)
    app.state.services = replace(app.state.services, thumbnails=Thumbnails(catalog, ImageLimits(), config))
    seen: list[str] = []
    read = catalog.blobs.get
    monkeypatch.setattr(catalog.blobs, "get", lambda sha256: seen.append(sha256) or read(sha256))
    assert (await client.get(url)).content == (await client.get(url)).content
    assert len(seen) == reads


async def test_a_thumbnail_that_two_ask_for_at_once_takes_its_room_once(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    await url_of(client, (600, 600))
    catalog = app.state.services.catalog
    image = catalog.products.get("p").images[0]
    one = len(await Thumbnails(catalog, ImageLimits(), ThumbnailsConfig()).get(image, "small"))
    thumbnails = Thumbnails(catalog, ImageLimits(), ThumbnailsConfig(cache_bytes=one, at_once=3))
    for _ in range(2):
        found = await asyncio.gather(*(thumbnails.get(image, "small") for _ in range(3)))
        assert {len(each) for each in found} == {one}


async def test_other_sizes_and_unknown_images_are_refused(client: httpx.AsyncClient) -> None:
    url = await url_of(client, (600, 600))
    wrong = await client.get(url, params={"size": "5000"})
    assert wrong.status_code == 422
    assert "small" in wrong.json()["error"]["message"]
    assert (await client.get(f"/v1/images/{'0' * 32}/thumbnail")).status_code == 404
