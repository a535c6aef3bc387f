"""Small pictures inside a page."""

import base64
import io
from functools import lru_cache

from catalog.opening import Catalog
from core.errors import InvalidInput, NotFound
from models.images import ImageLimits, decoding

_SIDE = 96
_KEPT = 4096


class Thumbnails:
    """Pictures of queries and of hits as data URIs; None for what cannot be shown."""

    def __init__(self, catalog: Catalog, limits: ImageLimits) -> None:
        self._catalog = catalog
        self._limits = limits
        self.of_image = lru_cache(maxsize=_KEPT)(self._of_image)

    def of_file(self, data: bytes) -> str | None:
        """Show a picture file."""
        file = io.BytesIO()
        try:
            with decoding(data, self._limits, target=_SIDE) as decoded:
                decoded.image.thumbnail((_SIDE, _SIDE))
                decoded.image.save(file, "JPEG", quality=75)
        except InvalidInput:
            return None
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

    def _of_image(self, image_id: str) -> str | None:
        try:
            data = self._catalog.blobs.get(self._catalog.products.picture(image_id).sha256)
        except NotFound:
            return None
        return self.of_file(data)
