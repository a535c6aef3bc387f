"""Fetcher of files by URL: from public addresses only, within limits of bytes, time and redirects."""

import asyncio
import gzip
import io
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache

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
from catalog.fetching.texts import read_data_uri
from core.errors import FetchFailed, InputTooLarge, UnfetchableUrl, VitrineError

_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}
"""Temporary client errors: a retry makes sense, as after every 5xx."""
_HEADERS = {"User-Agent": "vitrine", "Accept": "*/*", "Accept-Encoding": "identity"}
_CONDITIONS = {"If-None-Match", "If-Modified-Since"}
_BY_ZLIB = {"gzip", "x-gzip", "deflate"}
_UNREADABLE = {"br", "zstd", "compress", "x-compress", "dcb", "dcz"}
"""All other codings are ignored: they change no byte, such as the `aws-chunked` that object stores keep."""
_DETECT, _RAW_DEFLATE = 47, -15
"""Values of zlib's `wbits`: the first reads gzip and zlib, the second deflate without a header."""


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file with its validators; `body=None`: the file has not changed since the caller read it."""

    body: bytes | None
    etag: str | None = None
    last_modified: str | None = None


class _Budget:
    """Limits in bytes: of each file, and of all files of one request together."""

    def __init__(self, limits: FetchLimits) -> None:
        self.each = limits.max_bytes
        self._total = self._left = limits.max_total_bytes

    def take(self, count: int) -> None:
        """Subtract bytes; raise InputTooLarge if too few are left."""
        self._left -= count
        if self._left < 0:
            raise InputTooLarge(f"the URLs of this request hold more than {self._total:,} bytes together")

    def check(self, size: int) -> None:
        """Raise InputTooLarge if this size of a file is above the limit."""
        if size > self.each:
            raise InputTooLarge(f"the file behind the URL is larger than the limit of {self.each:,} bytes")


class Fetcher:
    """Fetches files by callers' URLs, and reads data URIs.

    It ignores the proxies and credentials of the environment. It keeps no connection between calls, so it works in
    any event loop.
    """

    def __init__(
        self, limits: FetchLimits, resolve: Resolver | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._limits = limits
        self._network = CheckedBackend(limits, resolve or SystemResolver(), httpcore.AnyIOBackend())
        self._tls = tls or _trusting()

    def most_bytes(self, urls: int) -> int:
        """Return the most bytes that the files behind so many URLs of one request can have together."""
        return min(urls * self._limits.max_bytes, self._limits.max_total_bytes)

    async def fetch(self, url: str) -> bytes:
        """Fetch one file.

        Raises:
            UnfetchableUrl: the URL is not allowed, or there is no file.
            InputTooLarge: the file is larger than the limit.
            FetchFailed: the server failed, or took too long.
        """
        (answer,) = await self.fetch_all([url])
        if isinstance(answer, VitrineError):
            raise answer
        return answer

    async def fetch_all(self, urls: Sequence[str]) -> list[bytes | VitrineError]:
        """Fetch files in parallel within one time limit; return files and errors in the order of the URLs."""
        places, budget = asyncio.Semaphore(self._limits.max_parallel), _Budget(self._limits)
        deadline = asyncio.get_running_loop().time() + self._limits.timeout_s

        async def fetch_one(url: str) -> bytes | VitrineError:
            try:
                async with self._until(deadline), places:
                    body = (await self._read(url, {}, budget)).body
            except VitrineError as error:
                return error
            assert body is not None, "without a condition there is no answer without a file"
            return body

        return list(await asyncio.gather(*map(fetch_one, urls)))

    async def ask(self, url: str, headers: Mapping[str, str]) -> FetchedFile:
        """Fetch one file with additional headers, such as a condition or a token.

        `Authorization` is removed if the URL redirects to another origin.

        Raises:
            UnfetchableUrl, InputTooLarge, FetchFailed: as `fetch`.
        """
        async with self._until(asyncio.get_running_loop().time() + self._limits.timeout_s):
            return await self._read(url, headers, _Budget(self._limits))

    @asynccontextmanager
    async def _until(self, deadline: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            failed = f"the URL did not arrive in full within {self._limits.timeout_s:g} s"
            raise FetchFailed(failed) from None

    async def _read(self, text: str, headers: Mapping[str, str], budget: _Budget) -> FetchedFile:
        if text.lstrip()[:5].lower() == "data:":
            body = await asyncio.to_thread(read_data_uri, text.strip())
            budget.check(len(body))
            budget.take(len(body))
            return FetchedFile(body)
        if not self._limits.enabled:
            raise UnfetchableUrl("this service does not fetch URLs; send the image itself")
        url, cookies = parse_url(text, self._limits.ports), httpx.Cookies()
        for _ in range(self._limits.max_redirects + 1):
            answer = await self._get(url, headers, cookies, budget)
            if isinstance(answer, FetchedFile):
                return answer
            target = follow(url, answer, self._limits.ports)
            if _origin(target) != _origin(url):
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = target
        raise UnfetchableUrl(f"the URL redirects more than {self._limits.max_redirects} times")

    async def _get(
        self, url: httpx.URL, headers: Mapping[str, str], cookies: httpx.Cookies, budget: _Budget
    ) -> FetchedFile | str:
        """Send one request; return the file, or the target of a redirect as the server wrote it."""
        fields = [(name.encode(), value.encode()) for name, value in (_HEADERS | dict(headers)).items()]
        # httpx writes Host, also for IPv6, and the cookies that earlier redirects set for this host.
        request = httpx.Request("GET", url, headers=fields)
        cookies.set_cookie_header(request)
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        timeouts = {"connect": self._limits.timeout_s}
        try:
            async with (
                httpcore.AsyncConnectionPool(self._tls, network_backend=self._network) as pool,
                pool.stream(
                    "GET", target, headers=request.headers.raw, extensions={"timeout": timeouts}
                ) as response,
            ):
                if response.status not in _REDIRECTS:
                    return await _read_file(response, budget, not _CONDITIONS.isdisjoint(headers))
                cookies.extract_cookies(httpx.Response(302, headers=response.headers, request=request))
                if location := _header(response, b"location"):
                    return location
                raise UnfetchableUrl("the URL redirects to nowhere")
        except httpcore.ConnectError:
            # CheckedBackend makes the connection, so only TLS can fail here.
            raise UnfetchableUrl("the host of this URL has no valid TLS certificate for its name") from None
        except (httpcore.ProtocolError, httpcore.NetworkError):
            raise FetchFailed("the server of this URL did not answer with complete HTTP") from None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _header(response: httpcore.Response, name: bytes) -> str:
    value = next((value for key, value in response.headers if key.lower() == name), b"").strip()
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def _read_file(response: httpcore.Response, budget: _Budget, conditional: bool) -> FetchedFile:
    """Read the file of a response; its body is None after a conditional request with the answer 304."""
    body = None if conditional and response.status == 304 else await _read_body(response, budget)
    return FetchedFile(body, _header(response, b"etag") or None, _header(response, b"last-modified") or None)


async def _read_body(response: httpcore.Response, budget: _Budget) -> bytes:
    """Read a body, and unpack it within the same limits if the server compressed it without being asked."""
    _check_status(response)
    codings = [each.strip() for each in _header(response, b"content-encoding").lower().split(",")]
    if unreadable := _UNREADABLE.intersection(codings):
        raise UnfetchableUrl(
            f"the server of this URL sends the file as {unreadable.pop()}, though it was not asked to"
        )
    declared = _header(response, b"content-length")
    if declared.isdecimal():
        budget.check(int(declared))
    received = bytearray()
    async for data in response.aiter_stream():
        budget.take(len(data))
        received += data
        budget.check(len(received))
    body = bytes(received)
    for coding in reversed([each for each in codings if each in _BY_ZLIB]):
        body = await asyncio.to_thread(_unpack, body, coding, budget.each)
        budget.check(len(body))
        budget.take(len(body))
    return body


def _unpack(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Unpack at most `max_bytes` + 1 bytes; a body that is not compressed after all is returned unchanged."""
    cut_off = FetchFailed("the file behind the URL ends too early: its compressed form is cut off")
    try:
        # GzipFile reads all members of a file; zlib stops after the first.
        return gzip.GzipFile(fileobj=io.BytesIO(body)).read(max_bytes + 1)
    except EOFError:
        raise cut_off from None
    except (gzip.BadGzipFile, zlib.error):
        # It is not gzip, or other bytes follow its members.
        pass
    for wbits in (_DETECT, _RAW_DEFLATE) if coding == "deflate" else (_DETECT,):
        unpacker = zlib.decompressobj(wbits)
        try:
            unpacked = unpacker.decompress(body, max_bytes + 1)
        except zlib.error:
            continue
        if not unpacker.eof and len(unpacked) <= max_bytes:
            raise cut_off
        return unpacked
    return body


def _check_status(response: httpcore.Response) -> None:
    status = response.status
    if status == 200:
        return
    message = f"the server of this URL answered with status {status}"
    if status >= 500 or status in _PASSING:
        failed = FetchFailed(message)
        failed.retry_after_s = retry_after_s(_header(response, b"retry-after"), datetime.now(UTC))
        raise failed
    refused = UnfetchableUrl(message)
    refused.status = status
    raise refused


@cache
def _trusting() -> ssl.SSLContext:
    # To read the certificates takes up to a tenth of a second.
    return httpx.create_ssl_context()


def retry_after_s(value: str, now: datetime) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3), seconds or a date; None if it is neither."""
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
