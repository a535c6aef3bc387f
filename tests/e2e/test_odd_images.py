"""Every odd image gets its right answer; nothing dies, and neighbors are unharmed."""

import io
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from demo.catalog import demo_products
from demo.service import DemoService
from tests.e2e.conftest import SEED


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def gradient(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert(mode)


def bomb(side: int) -> bytes:
    """A sound one-bit PNG of side x side black pixels, a few kilobytes small."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + side // 8) * side)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in chunks)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def rotated_by_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(gradient(), "JPEG", exif=exif.tobytes())


FINE = {
    "1x1": saved(Image.new("RGB", (1, 1), "red"), "PNG"),
    "CMYK": saved(gradient("CMYK"), "JPEG"),
    "alpha": saved(gradient("RGBA"), "PNG"),
    "EXIF": rotated_by_exif(),
}
REFUSED = {
    "truncated": (saved(gradient(size=(400, 300)), "JPEG")[:900], 422, "truncated"),
    "words": (b"these are words, not an image", 422, "not an image"),
    "empty": (b"", 422, "empty"),
    "bomb": (bomb(20_000), 413, "pixels"),
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


@pytest.mark.parametrize("kind", FINE)
def test_an_odd_image_is_embedded_by_every_model(client: httpx.Client, kind: str) -> None:
    for model in ("openclip", "dinov2", "blip2"):
        answer = client.post(f"/v1/embed/{model}", files={"image": ("odd.jpg", FINE[kind], "image/jpeg")})
        assert answer.status_code == 200, answer.text
        assert sum(value**2 for value in answer.json()["embedding"]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_image_gets_the_reason(client: httpx.Client, kind: str) -> None:
    data, status, word = REFUSED[kind]
    files = {"image": ("odd.jpg", data, "image/jpeg")}
    answers = [
        client.post("/v1/embed/openclip", files=files),
        client.put("/v1/products/odd", files={"images": files["image"]}),
    ]
    for answer in answers:
        assert answer.status_code == status, answer.text
        assert word in answer.json()["error"]["message"]
    assert client.get("/v1/products/odd").status_code == 404


def test_neighbors_in_the_batch_are_unharmed(client: httpx.Client) -> None:
    good = [product.images[0] for product in demo_products(SEED, 12)]
    bad = [data for data, _, _ in REFUSED.values()]
    alone = [_embed(client, data).json()["embedding"] for data in good]
    with ThreadPoolExecutor(16) as pool:
        mixed = list(pool.map(lambda data: _embed(client, data), [*good, *bad] * 2))
    for index, answer in enumerate(mixed):
        place = index % (len(good) + len(bad))
        if place >= len(good):
            assert answer.status_code in (413, 422)
        else:
            similarity = sum(a * b for a, b in zip(answer.json()["embedding"], alone[place], strict=True))
            assert similarity >= 0.99999


def _embed(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/v1/embed/blip2", files={"image": ("a.jpg", data, "image/jpeg")})
