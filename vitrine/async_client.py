"""The client for asyncio: one coroutine for each call of the API."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import httpx

from vitrine.answers import Product
from vitrine.async_jobs import AsyncJobs
from vitrine.async_sender import AsyncSender, sent
from vitrine.calls import embeddings, products, searches, status
from vitrine.keys import AsyncKeys
from vitrine.retries import Retries
from vitrine.settings import settings


class AsyncVitrine:
    """A Vitrine service, asked from one event loop; otherwise as `Vitrine`."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._sender = AsyncSender(settings(url, key, timeout_s, retries), transport)
        self.jobs = AsyncJobs(self._sender)
        self.keys = AsyncKeys(self._sender)

    put_product = sent(products.put_product)
    product = sent(products.product)
    product_page = sent(products.product_page)
    delete_product = sent(products.delete_product)
    image = sent(products.image)
    thumbnail = sent(products.thumbnail)
    attributes = sent(products.attributes)
    search = sent(searches.search)
    compare = sent(searches.compare)
    similar = sent(searches.similar)
    embed = sent(embeddings.embed)
    embed_texts = sent(embeddings.embed_texts)
    embed_pictures = sent(embeddings.embed_pictures)
    caption = sent(embeddings.caption)
    models = sent(status.models)
    versions = sent(status.versions)
    gaps = sent(status.gaps)
    stats = sent(status.stats)
    ready = sent(status.ready)

    async def products(self, page_size: int = 100, after: str | None = None) -> AsyncIterator[Product]:
        """Go through all products by id, those behind `after`."""
        while page := await self.product_page(page_size, after):
            for product in page:
                yield product
            after = page[-1].product_id

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()

    async def __aenter__(self) -> Self:
        """Use it for a while."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()
