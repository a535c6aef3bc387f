"""Images and requests: the same JPEG files for all servers, no two requests with the same file."""

import base64
import io
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

SIDE, COUNT = 500, 64
_HEAD = b'{"model":"%b","modality":"image","input":["'
_OPENING = b"data:image/jpeg;base64,"


def shop_images() -> list[bytes]:
    """Make 64 JPEG files of 500 x 500 pixels and about 80 KB."""
    return [_jpeg(seed) for seed in range(COUNT)]


def _jpeg(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    shapes = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    noisy = np.asarray(shapes, np.int16) + random.integers(-14, 15, (SIDE, SIDE, 3))
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=91)
    return stream.getvalue()


def as_image(data: bytes) -> Image.Image:
    """Decode a file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def numbers_of(request: int, batch: int) -> list[int]:
    """Return the positions of the images that a request of `batch` images holds."""
    return [number % COUNT for number in range(request * batch, (request + 1) * batch)]


def embedding_requests(path: str, model: str, images: Sequence[bytes], batch: int) -> Iterator[list[bytes]]:
    """Yield requests without end, in OpenAI's shape with data URIs, each in parts.

    A number after the end of the JPEG makes each file different, with the same pixels.
    """
    encoded = [_OPENING + base64.b64encode(_filled(each)) for each in images]
    for request in itertools.count():
        body = [_HEAD % model.encode()]
        for place, image in enumerate(numbers_of(request, batch)):
            mark = base64.b64encode(b"%012d" % (request * batch + place))
            body += [b'","' if place else b"", encoded[image], mark]
        body.append(b'"]}')
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        yield [head % (path.encode(), sum(map(len, body))), *body]


def _filled(data: bytes) -> bytes:
    """Fill up to a multiple of three bytes, so that base64 of more can follow."""
    return data + bytes(-len(data) % 3)
