"""A catalogue behind HTTP as a source, read page by page."""

import asyncio
import json
from collections.abc import Iterator, Sequence

import httpx

from catalog.fetching.fetcher import Fetcher
from catalog.sources.entries import Entry, PictureReference
from catalog.sources.field_map import FieldMap
from catalog.sources.manifest import read_entry
from catalog.sources.pages import Page, Place, page_url, read_page
from catalog.sources.retrying import retrying
from core.errors import InvalidInput, UnfetchableUrl
from core.importing import ImportConfig
from core.sources import RemoteSource


class Remote:
    """Implements `Source`; the position is the page and how many of its items are done."""

    version = ""

    def __init__(
        self, source: RemoteSource, token: str | None, fetcher: Fetcher, config: ImportConfig
    ) -> None:
        self._source = source
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._fetcher = fetcher
        self._config = config
        self._total: int | None = None

    def total(self) -> int | None:
        """The number of items that the last page that was read has told."""
        return self._total

    def entries(self, after: str | None) -> Iterator[Entry]:
        """Yield the products, page by page, with at most one page in memory."""
        place, done, row = _position(after, Place(self._source.start_page))
        seen: Page | None = None
        while True:
            page = self._page(place)
            self._check_progress(seen, page)
            fields = self._fields(page)
            for index, item in enumerate(page.items[done:], start=done + 1):
                row += 1
                position = json.dumps([place.number, place.token, index, row])
                yield read_entry(fields, item, row, position)
            if page.next is None:
                return
            place, done, seen = page.next, 0, page

    def _page(self, place: Place) -> Page:
        url = page_url(self._source, place)
        try:
            answer = asyncio.run(retrying(lambda: self._fetcher.ask(url, self._headers), self._config))
        except UnfetchableUrl as error:
            if error.status in (401, 403):
                raise InvalidInput(self._refused(error.status)).at("source.token_env") from None
            raise InvalidInput(f"page {place.number} of the catalogue: {error.message}").at(
                "source.url"
            ) from None
        assert answer.body is not None, "no condition was sent"
        page = read_page(self._source, place, answer.body)
        self._total = page.total
        return page

    def _fields(self, page: Page) -> FieldMap:
        names = {name for item in page.items if not isinstance(item, InvalidInput) for name in item}
        fields = self._source.fields
        # An item may lack any field but its id; only a page without a single id is a wrong description.
        optional = (fields.title, fields.description, fields.attributes, *(fields.images or ()))
        named = {name for name in optional if name is not None}
        return FieldMap(fields, names | named if names else named | {fields.product_id}, self._locate)

    def _locate(self, text: str) -> PictureReference:
        try:
            return str(httpx.URL(self._source.url).join(text))
        except (httpx.InvalidURL, ValueError):
            raise InvalidInput(f"{text!r:.200} is not the URL of a picture") from None

    def _check_progress(self, before: Page | None, now: Page) -> None:
        if before is not None and now.items and _plain(before.items) == _plain(now.items):
            raise InvalidInput(
                "the catalogue answers the same page again: check the names of its paging parameters"
            ).at("source.page_param")

    def _refused(self, status: int | None) -> str:
        if self._source.token_env is None:
            return f"the catalogue asks for a token (status {status}): name its variable in token_env"
        return (
            f"the catalogue refuses the token (status {status}): check what {self._source.token_env} "
            "holds in the environment of the job"
        )


def _position(after: str | None, first: Place) -> tuple[Place, int, int]:
    if after is None:
        return first, 0, 0
    number, token, done, row = json.loads(after)
    return Place(number, token), done, row


def _plain(items: Sequence[object]) -> list[object]:
    return [str(item) if isinstance(item, InvalidInput) else item for item in items]
