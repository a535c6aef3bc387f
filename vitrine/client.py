"""The client: one method for each call of the API."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import httpx

from vitrine.answers import Product
from vitrine.calls import embeddings, products, searches, status
from vitrine.jobs import Jobs
from vitrine.keys import Keys
from vitrine.retries import Retries
from vitrine.sender import Sender, sent
from vitrine.settings import settings


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
