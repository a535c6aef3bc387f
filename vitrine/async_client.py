"""The client for asyncio: one coroutine for each call of the API."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import httpx

from vitrine import calls
from vitrine.resources import AsyncJobs, AsyncKeys
from vitrine.schemas import Product
from vitrine.transport import AsyncSender, Retries, sent_async, settings


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

    put_product = sent_async(calls.put_product)
    product = sent_async(calls.product)
    product_page = sent_async(calls.product_page)
    delete_product = sent_async(calls.delete_product)
    image = sent_async(calls.image)
    thumbnail = sent_async(calls.thumbnail)
    attributes = sent_async(calls.attributes)
    search = sent_async(calls.search)
    compare = sent_async(calls.compare)
    similar = sent_async(calls.similar)
    embed = sent_async(calls.embed)
    embed_texts = sent_async(calls.embed_texts)
    embed_images = sent_async(calls.embed_images)
    caption = sent_async(calls.caption)
    models = sent_async(calls.models)
    versions = sent_async(calls.versions)
    gaps = sent_async(calls.gaps)
    stats = sent_async(calls.stats)
    ready = sent_async(calls.ready)

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
