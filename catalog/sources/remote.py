"""A catalog behind HTTP as a source, read page by page; open_source opens any kind of source."""

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from catalog.fetching.fetcher import Fetcher
from catalog.sources.entries import Entry, FieldMap, ImageReference, Row, Source, read_entry
from catalog.sources.folder import Folder
from catalog.sources.manifest import Manifest
from core.errors import FetchFailed, InvalidInput, UnfetchableUrl
from core.sources import FolderSource, ImportConfig, ManifestSource, RemoteSource

T = TypeVar("T")


async def retrying(ask: Callable[[], Awaitable[T]], config: ImportConfig) -> T:
    """Ask until there is an answer, with pauses that double, or as long as the server asks for.

    Raises:
        FetchFailed: none of the attempts succeeded; it is the last one's.
    """
    for attempt in range(config.attempts - 1):
        try:
            return await ask()
        except FetchFailed as error:
            # Up to a quarter more, so that many that failed together do not come again together.
            doubled = config.backoff_s * 2**attempt * random.uniform(1, 1.25)
            wanted = doubled if error.retry_after_s is None else error.retry_after_s
            await asyncio.sleep(min(wanted, config.max_backoff_s))
    return await ask()


@dataclass(frozen=True, slots=True)
class Place:
    """Which page: its number, and the link or cursor that the page before gave for it."""

    number: int
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The items of a page, and where the next one is; None after the last."""

    items: Sequence[Row | InvalidInput]
    total: int | None
    next: Place | None


def page_url(source: RemoteSource, place: Place) -> str:
    """Name a page; the source's own parameters stay.

    Raises:
        InvalidInput: the source's URL is none, or a link leads to another host.
    """
    try:
        url = httpx.URL(source.url)
        if source.paging == "link" and place.token is not None:
            return _followed_link(url, place.token)
        parameters: dict[str, str | int] = {}
        if source.page_size_param is not None:
            parameters[source.page_size_param] = source.page_size
        if source.paging == "number":
            parameters[source.page_param] = place.number
        elif place.token is not None:
            parameters[source.cursor_param] = place.token
        return str(url.copy_merge_params(parameters))
    except (httpx.InvalidURL, ValueError):
        raise InvalidInput("the catalog's URL, or a link to its next page, is not a URL").at(
            "source.url"
        ) from None


def read_page(source: RemoteSource, place: Place, body: bytes) -> Page:
    """Read a page.

    Raises:
        InvalidInput: it is not JSON, or lacks the fields that the source names.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput("the catalog's answer is not JSON").at("source.url") from None
    items = answer if source.items_field is None else _field_at(answer, source.items_field)
    if not isinstance(items, list):
        raise InvalidInput(_no_items(source, answer)).at("source.items_field")
    rows = [each if isinstance(each, dict) else InvalidInput("the item is not an object") for each in items]
    total = None if source.total_field is None else _field_at(answer, source.total_field)
    is_count = isinstance(total, int) and not isinstance(total, bool)
    return Page(rows, total if is_count else None, _next_place(source, place, answer, bool(rows)))


def _field_at(answer: Any, path: str) -> Any:
    """Look a field up by its path, with dots between; None when it is not there."""
    for name in path.split("."):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


def _next_place(source: RemoteSource, place: Place, answer: Any, has_items: bool) -> Place | None:
    if source.paging == "number":
        # Not at a page that is short: a server may give fewer items than it was asked for.
        return Place(place.number + 1) if has_items else None
    token = _field_at(answer, source.next_field)
    if token is None or token == "":
        return None
    if isinstance(token, bool) or not isinstance(token, str | int):
        raise InvalidInput(f"{source.next_field!r:.100} of the catalog's answer is not a text").at(
            "source.next_field"
        )
    return Place(place.number + 1, str(token))


def _followed_link(url: httpx.URL, link: str) -> str:
    target = url.join(link)
    # The token goes with the request, so it must not go to whoever the answer names.
    if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
        raise InvalidInput("the catalog's link to its next page leads to another host").at("source.url")
    return str(target)


def _no_items(source: RemoteSource, answer: Any) -> str:
    if source.items_field is None:
        return "the catalog's answer is not a list; say in items_field which of its fields is"
    known = ", ".join(repr(name) for name in sorted(answer)[:40]) if isinstance(answer, dict) else "none"
    return (
        f"the catalog's answer has no list {source.items_field!r:.100}; its fields: {known or 'none':.1000}"
    )


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
        self._report: dict[str, Any] = {}

    def total(self) -> int | None:
        """Number of items, by the last page that was read."""
        return self._total

    def report(self) -> dict[str, Any]:
        """Describe the fields of the last page that was read."""
        return {"format": "remote", **self._report}

    def entries(self, after: str | None) -> Iterator[Entry]:
        """Yield the products, page by page, with at most one page in memory."""
        place, done, row = _position(after, Place(self._source.start_page))
        seen: Page | None = None
        while True:
            page = self._page(place)
            self._check_progress(seen, page)
            fields = self._fields(page)
            self._report = fields.report()
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
            raise InvalidInput(f"page {place.number} of the catalog: {error.message}").at(
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
        optional = (
            fields.title, fields.description, fields.attributes, *(fields.images or ()), *fields.types
        )  # fmt: skip
        named = {name for name in optional if name is not None}
        known = names | named if names else named | {fields.product_id or "product_id"}
        return FieldMap(fields, known, self._locate)

    def _locate(self, text: str) -> ImageReference:
        try:
            return str(httpx.URL(self._source.url).join(text))
        except (httpx.InvalidURL, ValueError):
            raise InvalidInput(f"{text!r:.200} is not the URL of an image") from None

    def _check_progress(self, before: Page | None, now: Page) -> None:
        if before is not None and now.items and _plain(before.items) == _plain(now.items):
            raise InvalidInput(
                "the catalog answers the same page again: check the names of its paging parameters"
            ).at("source.page_param")

    def _refused(self, status: int | None) -> str:
        if self._source.token_env is None:
            return f"the catalog asks for a token (status {status}): name its variable in token_env"
        return (
            f"the catalog refuses the token (status {status}): check what {self._source.token_env} "
            "holds in the environment of the job"
        )


def _position(after: str | None, first: Place) -> tuple[Place, int, int]:
    if after is None:
        return first, 0, 0
    number, token, done, row = json.loads(after)
    return Place(number, token), done, row


def _plain(items: Sequence[object]) -> list[object]:
    return [str(item) if isinstance(item, InvalidInput) else item for item in items]


def open_source(
    description: FolderSource | ManifestSource | RemoteSource, fetcher: Fetcher, config: ImportConfig
) -> Source:
    """Open a source; a token is read from the environment here, and kept nowhere else.

    Raises:
        InvalidInput: it cannot be read, or its token is not set.
    """
    match description:
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
