"""Fetch files by URL: only from public places, within bytes, time and redirects."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence

import httpcore
import httpx

from catalog.fetching.config import FetchLimits
from catalog.fetching.connecting import CheckedBackend
from catalog.fetching.reading import Answer, Budget, Redirect, read_answer, redirect_of
from catalog.fetching.resolving import Resolver, SystemResolver
from catalog.fetching.urls import follow, parse_url
from core.errors import FetchFailed, UnfetchableUrl, VitrineError

_HEADERS = {"User-Agent": "vitrine", "Accept": "*/*", "Accept-Encoding": "identity"}
_CONDITIONS = {"If-None-Match", "If-Modified-Since"}


class Fetcher:
    """Fetches what callers name by URL.

    Neither proxies nor credentials of the environment are used. It holds no connection between two
    calls, so it may serve any event loop.
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

    async def ask(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Fetch one file with headers of the caller's own, as a condition or a token.

        A token is not shown to another origin that the URL redirects to.

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
    ) -> Answer | VitrineError:
        if not self._limits.enabled:
            return UnfetchableUrl("this service does not fetch URLs; send the picture itself")
        try:
            async with asyncio.timeout_at(deadline), places:
                return await self._follow(parse_url(url, self._limits.ports), headers, budget)
        except TimeoutError:
            return FetchFailed(f"the URL did not arrive in full within {self._limits.timeout_s:g} s")
        except VitrineError as error:
            return error

    async def _follow(self, url: httpx.URL, headers: Mapping[str, str], budget: Budget) -> Answer:
        for _ in range(self._limits.max_redirects + 1):
            answer = await self._get(url, headers, budget)
            if isinstance(answer, Answer):
                return answer
            target = follow(url, answer.location, self._limits.ports)
            if _origin(target) != _origin(url):
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = target
        raise UnfetchableUrl(f"the URL redirects more than {self._limits.max_redirects} times")

    async def _get(self, url: httpx.URL, headers: Mapping[str, str], budget: Budget) -> Answer | Redirect:
        timeouts = {"connect": self._limits.timeout_s}
        sent: dict[bytes | str, bytes | str] = {}
        sent.update(_HEADERS)
        sent.update(headers)
        try:
            async with (
                httpcore.AsyncConnectionPool(self._tls, network_backend=self._network) as pool,
                pool.stream("GET", _target(url), headers=sent, extensions={"timeout": timeouts}) as response,
            ):
                return redirect_of(response) or await read_answer(
                    response, self._limits.max_bytes, budget, not _CONDITIONS.isdisjoint(headers)
                )
        except httpcore.ConnectError:
            # The connection itself is made by CheckedBackend, so what is left is TLS.
            raise UnfetchableUrl("the host of this URL has no valid TLS certificate for its name") from None
        except (httpcore.ProtocolError, httpcore.NetworkError):
            raise FetchFailed("the server of this URL did not answer with complete HTTP") from None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _target(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
