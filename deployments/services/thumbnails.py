"""Thumbnails of the catalog's images, made when first asked for and cached."""

import asyncio
import io
from collections import OrderedDict
from typing import Literal

from PIL import Image

from catalog.opening import Catalog
from core.concurrency import DECODERS, run_in
from core.types import ProductImage
from deployments.config import ThumbnailsConfig
from deployments.http.middleware import request_ends_at
from models.images import ImageLimits, decoding

MEDIA_TYPE = "image/webp"
_QUALITY = 80
_EFFORT = 3
"""WebP's effort, 0 to 6; more shrinks files by a few percent and takes twice the time."""


Size = Literal["small", "large"]
SIDES: dict[Size, int] = {"small": 320, "large": 960}
"""Most pixels of the longer side."""


class Thumbnails:
    """Makes thumbnails in threads, a few at once, and caches the latest. For one event loop."""

    def __init__(self, catalog: Catalog, limits: ImageLimits, config: ThumbnailsConfig) -> None:
        self._catalog = catalog
        self._limits = limits
        self._turns = asyncio.Semaphore(config.at_once)
        self._free = config.cache_bytes
        self._kept: OrderedDict[tuple[str, Size], bytes] = OrderedDict()

    async def get(self, image: ProductImage, size: Size) -> bytes:
        """Return a WebP file with a longer side of at most `SIDES[size]` pixels; images are never enlarged.

        Raises:
            NotFound: the image's file is gone.
            InvalidImage: the file is damaged.
            Overloaded: too many pixels are in flight in this process.
        """
        key = (image.sha256, size)
        if key not in self._kept:
            async with self._turns:
                if key not in self._kept:
                    until = request_ends_at()
                    made = await run_in(DECODERS, self._make, image.sha256, SIDES[size], until)
                    self._keep(key, made)
                    return made
        self._kept.move_to_end(key)
        return self._kept[key]

    def _make(self, sha256: str, side: int, until: float | None) -> bytes:
        buffer = io.BytesIO()
        with decoding(self._catalog.blobs.get(sha256), self._limits, target=side, until=until) as decoded:
            decoded.image.thumbnail((side, side), Image.Resampling.LANCZOS)
            decoded.image.save(buffer, "WEBP", quality=_QUALITY, method=_EFFORT)
        return buffer.getvalue()

    def _keep(self, key: tuple[str, Size], made: bytes) -> None:
        # Two requests may have made it at the same time.
        self._free += len(self._kept.pop(key, b"")) - len(made)
        self._kept[key] = made
        while self._free < 0:
            _, oldest = self._kept.popitem(last=False)
            self._free += len(oldest)
