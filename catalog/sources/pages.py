"""What a page of a remote catalogue holds, and how the next one is named."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from catalog.sources.field_map import Row
from core.errors import InvalidInput
from core.sources import RemoteSource


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
            return _followed(url, place.token)
        parameters: dict[str, str | int] = {}
        if source.page_size_param is not None:
            parameters[source.page_size_param] = source.page_size
        if source.paging == "number":
            parameters[source.page_param] = place.number
        elif place.token is not None:
            parameters[source.cursor_param] = place.token
        return str(url.copy_merge_params(parameters))
    except (httpx.InvalidURL, ValueError):
        raise InvalidInput("the catalogue's URL, or a link to its next page, is not a URL").at(
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
        raise InvalidInput("the catalogue's answer is not JSON").at("source.url") from None
    items = answer if source.items_field is None else field(answer, source.items_field)
    if not isinstance(items, list):
        raise InvalidInput(_no_items(source, answer)).at("source.items_field")
    rows = [each if isinstance(each, dict) else InvalidInput("the item is not an object") for each in items]
    total = None if source.total_field is None else field(answer, source.total_field)
    is_count = isinstance(total, int) and not isinstance(total, bool)
    return Page(rows, total if is_count else None, _next(source, place, answer, bool(rows)))


def field(answer: Any, path: str) -> Any:
    """Look a field up by its path, with dots between; None when it is not there."""
    for name in path.split("."):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


def _next(source: RemoteSource, place: Place, answer: Any, has_items: bool) -> Place | None:
    if source.paging == "number":
        # Not at a page that is short: a server may give fewer items than it was asked for.
        return Place(place.number + 1) if has_items else None
    token = field(answer, source.next_field)
    if token is None or token == "":
        return None
    if isinstance(token, bool) or not isinstance(token, str | int):
        raise InvalidInput(f"{source.next_field!r:.100} of the catalogue's answer is not a text").at(
            "source.next_field"
        )
    return Place(place.number + 1, str(token))


def _followed(url: httpx.URL, link: str) -> str:
    target = url.join(link)
    # The token goes with the request, so it must not go to whoever the answer names.
    if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
        raise InvalidInput("the catalogue's link to its next page leads to another host").at("source.url")
    return str(target)


def _no_items(source: RemoteSource, answer: Any) -> str:
    if source.items_field is None:
        return "the catalogue's answer is not a list; say in items_field which of its fields is"
    known = ", ".join(repr(name) for name in sorted(answer)[:40]) if isinstance(answer, dict) else "none"
    return (
        f"the catalogue's answer has no list {source.items_field!r:.100}; its fields: {known or 'none':.1000}"
    )
