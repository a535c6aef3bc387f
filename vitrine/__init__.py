"""A client of the visual search service Vitrine.

    from vitrine import Vitrine

    with Vitrine("http://127.0.0.1:8000") as shop:
        for hit in shop.search("a red checked dress").results:
            print(hit.score, hit.product.title)

It imports nothing of the service. `AsyncVitrine` is the same for asyncio.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from vitrine.errors import (
    Conflict,
    FetchFailed,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServiceError,
    TryLater,
    Unauthenticated,
    Unavailable,
    Unreachable,
)  # fmt: skip

if TYPE_CHECKING:
    from vitrine.async_client import AsyncVitrine
    from vitrine.batches import BatchSummary, NewProduct
    from vitrine.client import Vitrine
    from vitrine.query import Box, ImagePart, ProductImagePart, ProductPart, TextPart
    from vitrine.transport import Retries

__all__ = [
    "AsyncVitrine", "BatchSummary", "Box", "Conflict", "FetchFailed", "Forbidden", "ImagePart",
    "InvalidRequest", "NewProduct", "NotFound", "ProductImagePart", "ProductPart", "RateLimited", "Retries",
    "ServiceError", "TextPart", "TryLater", "Unauthenticated", "Unavailable", "Unreachable", "Vitrine",
]  # fmt: skip

_MODULES = {
    "AsyncVitrine": "async_client", "BatchSummary": "batches", "NewProduct": "batches", "Retries": "transport",
    "Vitrine": "client",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a name when it is first used: the command line answers `--help` without httpx and pydantic."""
    if name not in __all__:
        raise AttributeError(f"module 'vitrine' has no attribute {name!r}")
    return getattr(import_module(f"vitrine.{_MODULES.get(name, 'query')}"), name)
