"""The client: one method for each call of the API."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import httpx

from vitrine import calls
from vitrine.resources import Jobs, Keys
from vitrine.schemas import Product
from vitrine.transport import Retries, Sender, sent, settings


class Vitrine:
    """A Vitrine service.

    `url` is by default VITRINE_URL, or else this machine's port 8000; `key` is by default VITRINE_KEY.
    `timeout_s` bounds each attempt, in seconds, and `retries` says how often calls that do no harm when they
    are done twice are sent again. Every method raises a `ServiceError` where the service answers with one.
    It may be used from several threads, and as a context manager, which closes its connections.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._sender = Sender(settings(url, key, timeout_s, retries), transport)
        self.jobs = Jobs(self._sender)
        self.keys = Keys(self._sender)

    put_product = sent(calls.put_product)
    product = sent(calls.product)
    product_page = sent(calls.product_page)
    delete_product = sent(calls.delete_product)
    image = sent(calls.image)
    thumbnail = sent(calls.thumbnail)
    attributes = sent(calls.attributes)
    search = sent(calls.search)
    compare = sent(calls.compare)
    similar = sent(calls.similar)
    embed = sent(calls.embed)
    embed_texts = sent(calls.embed_texts)
    embed_images = sent(calls.embed_images)
    caption = sent(calls.caption)
    models = sent(calls.models)
    versions = sent(calls.versions)
    gaps = sent(calls.gaps)
    stats = sent(calls.stats)
    ready = sent(calls.ready)

    def products(self, page_size: int = 100, after: str | None = None) -> Iterator[Product]:
        """Go through all products by id, those behind `after`."""
        while page := self.product_page(page_size, after):
            yield from page
            after = page[-1].product_id

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()

    def __enter__(self) -> Self:
        """Use it for a while."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()
