"""Fetcher of files by URL: from public addresses only, within limits of bytes, time and redirects."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore
import httpx

from catalog.fetching.connections import (
    CheckedBackend,
    FetchLimits,
    Resolver,
    SystemResolver,
    follow,
    parse_url,
)
from core.errors import FetchFailed, InputTooLarge, UnfetchableUrl, VitrineError

_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}
"""Client errors that may pass, so that a retry makes sense, as after all 5xx."""
_HEADERS = {"User-Agent": "vitrine", "Accept": "*/*", "Accept-Encoding": "identity"}
_CONDITIONS = {"If-None-Match", "If-Modified-Since"}


@dataclass(frozen=True, slots=True)
class Redirect:
    """Target of a redirect, as the server wrote it."""

    location: str


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file with its validators; `body=None`: it has not changed since the caller read it."""

    body: bytes | None
    etag: str | None
    last_modified: str | None


class Budget:
    """Bytes that all URLs of one request may have together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes

    def take(self, count: int) -> None:
        """Count bytes; InputTooLarge when none are left."""
        self._left -= count
        if self._left < 0:
            raise InputTooLarge(f"the URLs of this request hold more than {self._max_bytes:,} bytes together")


def redirect_of(response: httpcore.Response) -> Redirect | None:
    """Read a redirect; None when the response is none."""
    if response.status not in _REDIRECTS:
        return None
    location = _header(response, b"location")
    if not location:
        raise UnfetchableUrl("the URL redirects to nowhere")
    return Redirect(location)


async def read_file(
    response: httpcore.Response, max_bytes: int, budget: Budget, conditional: bool
) -> FetchedFile:
    """Read the file of a response, or, after a conditional request, that it has not changed (304).

    Raises:
        UnfetchableUrl: the server refuses, or sends the file compressed, which could be a bomb.
        InputTooLarge: the file is larger than `max_bytes`, or the budget is spent.
        FetchFailed: the server failed.
    """
    is_known = conditional and response.status == 304
    body = None if is_known else await _read_body(response, max_bytes, budget)
    return FetchedFile(body, _header(response, b"etag") or None, _header(response, b"last-modified") or None)


async def _read_body(response: httpcore.Response, max_bytes: int, budget: Budget) -> bytes:
    _check_status(response)
    if _header(response, b"content-encoding").lower() not in ("", "identity"):
        raise UnfetchableUrl("the server of this URL compresses its answer, though it was asked not to")
    declared = _header(response, b"content-length")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for data in response.aiter_stream():
        budget.take(len(data))
        body += data
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


def _check_status(response: httpcore.Response) -> None:
    status = response.status
    if status == 200:
        return
    if status >= 500 or status in _PASSING:
        failed = FetchFailed(f"the server of this URL answered with status {status}")
        failed.retry_after_s = retry_after_s(_header(response, b"retry-after"), datetime.now(UTC))
        raise failed
    refused = UnfetchableUrl(f"the server of this URL answered with status {status}")
    refused.status = status
    raise refused


def retry_after_s(value: str, now: datetime) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3), seconds or a date; None when it is neither."""
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def _header(response: httpcore.Response, name: bytes) -> str:
    values = (value for key, value in response.headers if key.lower() == name)
    return next(values, b"").decode("latin-1").strip()


def _too_large(max_bytes: int) -> InputTooLarge:
    return InputTooLarge(f"the file behind the URL is larger than the limit of {max_bytes:,} bytes")


class Fetcher:
    """Fetches files by callers' URLs.

    It uses no proxies and no credentials of the environment. It keeps no connection between calls, so it works in
    any event loop.
    """

    def __init__(
        self, limits: FetchLimits, resolve: Resolver | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._limits = limits
        self._network = CheckedBackend(limits, resolve or SystemResolver(), httpcore.AnyIOBackend())
        self._tls = tls or httpx.create_ssl_context()

    async def fetch(self, url: str) -> bytes:
        """Fetch one file.

        Raises:
            UnfetchableUrl: the URL is not fetched, or leads to nothing.
            InputTooLarge: the file is larger than the limit.
            FetchFailed: the server failed, or took too long.
        """
        (answer,) = await self.fetch_all([url])
        if isinstance(answer, VitrineError):
            raise answer
        return answer

    async def fetch_all(self, urls: Sequence[str]) -> list[bytes | VitrineError]:
        """Fetch files side by side, all within one time limit; each succeeds or fails alone, in order."""
        places = asyncio.Semaphore(self._limits.max_parallel)
        budget = Budget(self._limits.max_total_bytes)
        deadline = asyncio.get_running_loop().time() + self._limits.timeout_s
        return list(await asyncio.gather(*(self._fetch_one(url, places, budget, deadline) for url in urls)))

    async def ask(self, url: str, headers: Mapping[str, str]) -> FetchedFile:
        """Fetch one file with additional headers, such as a condition or a token.

        A token is not sent to another origin that the URL redirects to.

        Raises:
            UnfetchableUrl, InputTooLarge, FetchFailed: as `fetch`.
        """
        budget = Budget(self._limits.max_total_bytes)
        deadline = asyncio.get_running_loop().time() + self._limits.timeout_s
        answer = await self._ask(url, headers, asyncio.Semaphore(), budget, deadline)
        if isinstance(answer, VitrineError):
            raise answer
        return answer

    async def _fetch_one(
        self, url: str, places: asyncio.Semaphore, budget: Budget, deadline: float
    ) -> bytes | VitrineError:
        answer = await self._ask(url, {}, places, budget, deadline)
        if isinstance(answer, VitrineError):
            return answer
        assert answer.body is not None, "without a condition there is no answer without a file"
        return answer.body

    async def _ask(
        self,
        url: str,
        headers: Mapping[str, str],
        places: asyncio.Semaphore,
        budget: Budget,
        deadline: float,
    ) -> FetchedFile | VitrineError:
        if not self._limits.enabled:
            return UnfetchableUrl("this service does not fetch URLs; send the image itself")
        try:
            async with asyncio.timeout_at(deadline), places:
                return await self._follow(parse_url(url, self._limits.ports), headers, budget)
        except TimeoutError:
            return FetchFailed(f"the URL did not arrive in full within {self._limits.timeout_s:g} s")
        except VitrineError as error:
            return error

    async def _follow(self, url: httpx.URL, headers: Mapping[str, str], budget: Budget) -> FetchedFile:
        for _ in range(self._limits.max_redirects + 1):
            answer = await self._get(url, headers, budget)
            if isinstance(answer, FetchedFile):
                return answer
            target = follow(url, answer.location, self._limits.ports)
            if _origin(target) != _origin(url):
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = target
        raise UnfetchableUrl(f"the URL redirects more than {self._limits.max_redirects} times")

    async def _get(
        self, url: httpx.URL, headers: Mapping[str, str], budget: Budget
    ) -> FetchedFile | Redirect:
        timeouts = {"connect": self._limits.timeout_s}
        sent: dict[bytes | str, bytes | str] = {}
        sent.update(_HEADERS)
        sent.update(headers)
        try:
            async with (
                httpcore.AsyncConnectionPool(self._tls, network_backend=self._network) as pool,
                pool.stream("GET", _target(url), headers=sent, extensions={"timeout": timeouts}) as response,
            ):
                return redirect_of(response) or await read_file(
                    response, self._limits.max_bytes, budget, not _CONDITIONS.isdisjoint(headers)
                )
        except httpcore.ConnectError:
            # CheckedBackend makes the connection, so only TLS can fail here.
            raise UnfetchableUrl("the host of this URL has no valid TLS certificate for its name") from None
        except (httpcore.ProtocolError, httpcore.NetworkError):
            raise FetchFailed("the server of this URL did not answer with complete HTTP") from None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _target(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
