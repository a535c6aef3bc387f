"""A catalog behind HTTP as a source, read page by page. `open_source` opens any kind of source."""

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from catalog.fetching.fetcher import Fetcher
from catalog.sources.entries import Entry, FieldMap, ImageReference, Source, read_entry
from catalog.sources.folder import Folder, ImageFolder
from catalog.sources.manifest import Manifest
from core.errors import FetchFailed, InvalidInput, UnfetchableUrl
from core.sources import FolderSource, ImportConfig, ManifestSource, RemoteSource

T = TypeVar("T")
# Only these names: others could match different fields on different pages.
_FIELDS = {name: (name,) for name in ("product_id", "title", "description", "attributes")} | {
    "images": ("images", "image")
}


async def retrying(ask: Callable[[], Awaitable[T]], config: ImportConfig) -> T:
    """Retry a request until it succeeds or `config.attempts` is reached.

    The pause doubles each time, unless the server asks for another one by `Retry-After`.

    Raises:
        FetchFailed: no attempt succeeded; the error is that of the last one.
    """
    for attempt in range(config.attempts - 1):
        try:
            return await ask()
        except FetchFailed as error:
            # Random jitter: requests that failed together should not retry together.
            doubled = config.backoff_s * 2**attempt * random.uniform(1, 1.25)
            wanted = doubled if error.retry_after_s is None else error.retry_after_s
            await asyncio.sleep(min(wanted, config.max_backoff_s))
    return await ask()


@dataclass(frozen=True, slots=True)
class Place:
    """A page: its number, and the link or cursor that the page before gave for it."""

    number: int
    token: str | None = None


class Remote:
    """Implements `Source`; the position is the page and the number of its items that are done."""

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
        self._report: dict[str, Any] = {}

    def total(self) -> int | None:
        """Return the number of items that the last page gave."""
        return self._total

    def report(self) -> dict[str, Any]:
        """Describe the fields of the last page that was read."""
        return {"format": "remote", **self._report}

    def entries(self, after: str | None) -> Iterator[Entry]:
        """Yield the products page by page, with at most two pages in memory."""
        number, token, done, row = (
            (self._source.start_page, None, 0, 0) if after is None else json.loads(after)
        )
        place: Place | None = Place(number, token)
        seen: list[Any] = []
        while place is not None:
            answer = self._answer(place)
            items = self._items(answer)
            if items and items == seen:
                raise InvalidInput(
                    "the catalog answers the same page again: check the names of its paging parameters"
                ).at("source.page_param")
            fields = self._fields(items)
            self._report = fields.report()
            for index, item in enumerate(items[done:], start=done + 1):
                row += 1
                found = item if isinstance(item, dict) else InvalidInput("the item is not an object")
                yield read_entry(fields, found, row, json.dumps([place.number, place.token, index, row]))
            place, done, seen = self._next_place(place, answer, bool(items)), 0, items

    def _answer(self, place: Place) -> Any:
        """Read a page, as JSON."""
        url = self._page_url(place)
        try:
            answer = asyncio.run(retrying(lambda: self._fetcher.ask(url, self._headers), self._config))
        except UnfetchableUrl as error:
            if error.status in (401, 403):
                raise InvalidInput(self._refused(error.status)).at("source.token_env") from None
            raise InvalidInput(f"page {place.number} of the catalog: {error.message}").at(
                "source.url"
            ) from None
        assert answer.body is not None, "no condition was sent"
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            raise InvalidInput("the catalog's answer is not JSON").at("source.url") from None

    def _page_url(self, place: Place) -> str:
        """Return the URL of a page; parameters in the source's URL are kept."""
        source = self._source
        parameters: dict[str, str | int] = {}
        if source.page_size_param is not None:
            parameters[source.page_size_param] = source.page_size
        if source.paging == "number":
            parameters[source.page_param] = place.number
        elif place.token is not None:
            parameters[source.cursor_param] = place.token
        try:
            url = httpx.URL(source.url)
            if source.paging != "link" or place.token is None:
                return str(url.copy_merge_params(parameters))
            target = url.join(place.token)
        except (httpx.InvalidURL, ValueError):
            raise InvalidInput("the catalog's URL, or a link to its next page, is not a URL").at(
                "source.url"
            ) from None
        # The request carries the token, and an answer must not send it to another host.
        if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
            raise InvalidInput("the catalog's link to its next page leads to another host").at("source.url")
        return str(target)

    def _items(self, answer: Any) -> list[Any]:
        name, total = self._source.items_field, _field_at(answer, self._source.total_field)
        self._total = total if isinstance(total, int) and not isinstance(total, bool) else None
        items = answer if name is None else _field_at(answer, name)
        if isinstance(items, list):
            return items
        known = ", ".join(repr(each) for each in sorted(answer)[:40]) if isinstance(answer, dict) else ""
        raise InvalidInput(
            "the catalog's answer is not a list; say in items_field which of its fields is"
            if name is None
            else f"the catalog's answer has no list {name!r:.100}; its fields: {known or 'none':.1000}"
        ).at("source.items_field")

    def _next_place(self, place: Place, answer: Any, has_items: bool) -> Place | None:
        if self._source.paging == "number":
            # A short page is not the last one: a server may give fewer items than it was asked for.
            return Place(place.number + 1) if has_items else None
        token = _field_at(answer, self._source.next_field)
        if token is None or token == "":
            return None
        if isinstance(token, bool) or not isinstance(token, str | int):
            raise InvalidInput(f"{self._source.next_field!r:.100} of the catalog's answer is not a text").at(
                "source.next_field"
            )
        return Place(place.number + 1, str(token))

    def _fields(self, items: Sequence[Any]) -> FieldMap:
        names = {name for item in items if isinstance(item, dict) for name in item}
        fields = self._source.fields
        # An item may lack any field but its id. The description is wrong only if no item of a page has an id.
        named = {fields.title, fields.description, fields.attributes, *(fields.images or ()), *fields.types}
        known = named | (names or {fields.product_id or "product_id"})
        columns = sorted(name for name in known if name is not None)
        return FieldMap(fields, columns, self._locate, {}, _FIELDS)

    def _locate(self, text: str) -> ImageReference:
        if text[:5].lower() == "data:":
            # Data URIs may be longer than httpx allows a URL to be.
            return text
        try:
            return str(httpx.URL(self._source.url).join(text))
        except (httpx.InvalidURL, ValueError):
            raise InvalidInput(f"{text!r:.200} is not the URL of an image") from None

    def _refused(self, status: int | None) -> str:
        name = self._source.token_env
        if name is None:
            return f"the catalog asks for a token (status {status}): name its variable in token_env"
        return f"the catalog refuses the token (status {status}): check {name} in the environment of the job"


def _field_at(answer: Any, path: str | None) -> Any:
    """Look up a field by its dotted path; None if it is missing."""
    if path is None:
        return None
    for name in path.split("."):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


def open_source(
    description: FolderSource | ManifestSource | RemoteSource, fetcher: Fetcher, config: ImportConfig
) -> Source:
    """Open a source; its token is read from the environment here, and stored nowhere.

    Raises:
        InvalidInput: it cannot be read, or its token is not set.
    """
    match description:
        case FolderSource(products="images"):
            return ImageFolder(description)
        case FolderSource():
            return Folder(description)
        case ManifestSource():
            return Manifest(description)
        case RemoteSource():
            return Remote(description, _read_token(description.token_env), fetcher, config)


def _read_token(name: str | None) -> str | None:
    if name is None:
        return None
    token = os.environ.get(name, "").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise InvalidInput(f"{name} holds no token in the environment of the job").at("source.token_env")
    return token
