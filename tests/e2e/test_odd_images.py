"""Every odd image gets its right answer; nothing dies, and neighbors are unharmed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from demo.catalog import demo_products
from demo.service import DemoService
from tests.e2e.conftest import SEED
from tests.support.image_files import file, png_bomb, rotated_jpeg


def gradient(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert(mode)


FINE = (
    file(Image.new("RGB", (1, 1), "red"), "PNG"),
    file(gradient("CMYK"), "JPEG"),
    file(gradient("RGBA"), "PNG"),
    rotated_jpeg(gradient(), 6),
)
REFUSED = {
    file(gradient(size=(400, 300)), "JPEG")[:900]: 422,
    b"these are words, not an image": 422,
    b"": 422,
    png_bomb(20_000): 413,
}


@pytest.fixture(scope="module", autouse=True)
def nothing_dies(service: DemoService) -> Iterator[None]:
    """What images pass through is not another process afterwards; of several, some may have been needless."""
    before = replicas(service)
    yield
    after = replicas(service)
    assert [name for name, pids in before.items() if not pids & after.get(name, set())] == []


def replicas(service: DemoService) -> dict[str, set[int]]:
    """The processes of each model and of the gateway."""
    names = ("openclip", "dinov2", "blip2", "gateway")
    return {name: {each.pid for each in service.processes(f"ServeReplica:{name}:")} for name in names}


def test_neighbors_in_the_batch_are_unharmed(client: httpx.Client) -> None:
    good = [*FINE, *(product.images[0] for product in demo_products(SEED, 12))]
    bad = list(REFUSED)
    alone = [_embed(client, data).json()["embedding"] for data in good]
    with ThreadPoolExecutor(16) as pool:
        mixed = list(pool.map(lambda data: _embed(client, data), [*good, *bad] * 2))
    for index, answer in enumerate(mixed):
        place = index % (len(good) + len(bad))
        if place >= len(good):
            assert answer.status_code == REFUSED[bad[place - len(good)]]
        else:
            similarity = sum(a * b for a, b in zip(answer.json()["embedding"], alone[place], strict=True))
            assert similarity >= 0.99999


def _embed(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/v1/embed/blip2", files={"image": ("a.jpg", data, "image/jpeg")})
