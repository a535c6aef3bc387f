"""A client of the visual search service Vitrine.

    from vitrine import Vitrine

    with Vitrine("http://127.0.0.1:8000") as shop:
        for hit in shop.search("a red checked dress").results:
            print(hit.score, hit.product.title)

It imports nothing of the service. `AsyncVitrine` is the same for asyncio.
"""

from vitrine.async_client import AsyncVitrine
from vitrine.client import Vitrine
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
)
from vitrine.parts import Box, Like, LikeImage, Look, Words
from vitrine.retries import Retries

__all__ = [
    "AsyncVitrine",
    "Box",
    "Conflict",
    "FetchFailed",
    "Forbidden",
    "InvalidRequest",
    "Like",
    "LikeImage",
    "Look",
    "NotFound",
    "RateLimited",
    "Retries",
    "ServiceError",
    "TryLater",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "Vitrine",
    "Words",
]
