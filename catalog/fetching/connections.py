"""Limits of fetching, and connections to public addresses only, as a protection against SSRF."""

import asyncio
import re
import socket
import unicodedata
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpcore
import httpx
from httpcore import AsyncNetworkBackend, AsyncNetworkStream
from pydantic import Field, field_validator

from catalog.fetching.texts import MAX_URL_LENGTH, ONLY_HTTP
from core.config import Config
from core.errors import UnfetchableUrl

_DEFAULT_PORTS = {"http": 80, "https": 443}
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_FORMALLY_GLOBAL = (
    IPv4Network("168.63.129.16/32"),  # Azure's host answers its guests here
    IPv4Network("192.0.0.0/24"),  # protocol assignments; Oracle's metadata service
    IPv4Network("192.88.99.0/24"),  # the anycast entry to 6to4
)
"""Networks without images that `is_global` accepts, in some or all versions of Python."""
_THREADS = 16
_NAME = re.compile(rb"[\w.:-]+")
_HOST = re.compile(r"(?<=//)[^/?#]*")
_ATTEMPTS = 4
"""Number of addresses of one host that are tried."""


class FetchLimits(Config):
    """Bounds of fetching by URL: bytes, time, redirects and destinations."""

    enabled: bool = Field(True, description="Whether URLs from callers are fetched at all.")
    max_bytes: int = Field(25 * 2**20, gt=0, description="Largest file behind one URL, in bytes.")
    max_total_bytes: int = Field(
        64 * 2**20, gt=0, description="Largest sum of the files that one request names by URL, in bytes."
    )
    timeout_s: float = Field(
        10.0, gt=0, description="Time for all URLs of one request together, redirects included, in seconds."
    )
    max_redirects: int = Field(3, ge=0, description="Redirects that are followed from one URL.")
    max_parallel: int = Field(16, gt=0, description="URLs of one request that are fetched side by side.")
    ports: tuple[int, ...] = Field((80, 443), description="Ports that a URL may name.")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Host names whose addresses need not be public, as a shop's own image server."
    )
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        (), description="Networks such as 10.1.0.0/16 whose addresses need not be public."
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names_alone(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            try:
                is_name = _NAME.fullmatch(_dns_name(host))
            except (httpx.InvalidURL, ValueError):
                is_name = None
            if is_name is None:
                raise ValueError(f"{host!r} is no host name; write it alone, as images.shop.example")
        return hosts


def _dns_name(host: str) -> bytes:
    """Write a host as in a URL: in lower case, and encoded for DNS."""
    return httpx.URL(host=host.rstrip(".")).raw_host


def parse_url(text: str, ports: Collection[int]) -> httpx.URL:
    """Read a URL; `//host/path` is https.

    Raises:
        UnfetchableUrl: it is not http(s), has credentials, has no host, or its port is not among `ports`.
    """
    text = text.strip()
    if text.startswith("//"):
        text = f"https:{text}"
    if len(text) > MAX_URL_LENGTH:
        raise UnfetchableUrl(f"a URL may have at most {MAX_URL_LENGTH} characters")
    try:
        return _checked_url(httpx.URL(_with_composed_host(text)), ports)
    except (httpx.InvalidURL, ValueError):
        raise UnfetchableUrl("not a valid URL; send one like https://example.com/image.jpg") from None


def follow(url: httpx.URL, location: str, ports: Collection[int]) -> httpx.URL:
    """Read the target of a redirect from `url`.

    Raises:
        UnfetchableUrl: as in `parse_url`, or the redirect leads from https to http.
    """
    if len(location) > MAX_URL_LENGTH:
        raise UnfetchableUrl(f"the URL redirects to one of more than {MAX_URL_LENGTH} characters")
    try:
        target = _checked_url(url.join(_with_composed_host(location)), ports)
    except (httpx.InvalidURL, ValueError):
        raise UnfetchableUrl("the URL redirects to something that is not a URL") from None
    except UnfetchableUrl as error:
        raise UnfetchableUrl(f"the URL redirects to another that is not fetched: {error.message}") from None
    if url.scheme == "https" and target.scheme != "https":
        raise UnfetchableUrl("the URL redirects from https to http")
    return target


def _with_composed_host(text: str) -> str:
    """Compose the letters and accents of the host, as in DNS (NFC); macOS decomposes them."""
    return _HOST.sub(lambda host: unicodedata.normalize("NFC", host[0]), text, count=1)


def _checked_url(url: httpx.URL, ports: Collection[int]) -> httpx.URL:
    if url.scheme not in _DEFAULT_PORTS:
        raise UnfetchableUrl(ONLY_HTTP)
    if url.userinfo:
        raise UnfetchableUrl("a URL may not carry a user name or a password")
    # `url.host` raises ValueError for letters that no host name has, even if DNS might accept them.
    if not url.host:
        raise UnfetchableUrl("the URL names no host")
    if (_DEFAULT_PORTS[url.scheme] if url.port is None else url.port) not in ports:
        known = ", ".join(str(port) for port in sorted(ports))
        raise UnfetchableUrl(f"the URL's port is not open to fetching; ports: {known}")
    return url


def may_connect(address: str, allowed: Iterable[IPv4Network | IPv6Network] = ()) -> bool:
    """Return whether an address literal is public, or lies in one of the allowed networks."""
    parsed = _unmapped(ip_address(address))
    if any(parsed in network for network in allowed):
        return True
    return _is_public(parsed)


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Map ::ffff:a.b.c.d to a.b.c.d, as the kernel does when it connects."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return _is_global(address) and not any(address in network for network in _FORMALLY_GLOBAL)
    if address in _NAT64:
        return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if address.sixtofour is not None and not _is_public(address.sixtofour):
        return False
    # Outside of 2000::/3, is_global accepts addresses that circumvent the rules for IPv4, such as ::127.0.0.1.
    return _is_global(address) and address in _GLOBAL_UNICAST


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast


Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Returns the IP address literals of a host for a TCP port; raises OSError when there are none."""


class SystemResolver:
    """Resolver of the operating system, in threads of its own.

    A name server that does not answer blocks its thread for many seconds. Other blocking calls must not wait for it.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolve")

    async def __call__(self, host: str, port: int) -> list[str]:
        """Resolve a host to its addresses, in the order in which to try them."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _resolve, host, port)
        return list(dict.fromkeys(found))


def _resolve(host: str, port: int) -> list[str]:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("the name cannot be written for DNS") from None
    return [str(address[0]) for *_, address in answers]


class CheckedBackend(AsyncNetworkBackend):
    """Resolves a host once, checks every address, and connects to the addresses that it checked.

    There is no second lookup, because the name could change its address in between (DNS rebinding). TLS still
    verifies the certificate against the name in the URL.
    """

    def __init__(self, limits: FetchLimits, resolve: Resolver, network: AsyncNetworkBackend) -> None:
        self._limits = limits
        self._open_hosts = set(map(_dns_name, limits.allowed_hosts))
        self._resolve = resolve
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Connect to the first address of the host that answers.

        Raises:
            UnfetchableUrl: an address is not public, the name has no address, or no address answers. The message
                is always the same, so that callers cannot learn which names and ports exist in our network.
        """
        share = None if timeout is None else timeout / 2
        for address in (await self._addresses(host, port))[:_ATTEMPTS]:
            try:
                return await self._network.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        raise _unreachable()

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            addresses = await self._resolve(host, port)
        except OSError:
            raise _unreachable() from None
        if host.lower().rstrip(".").encode() not in self._open_hosts and not all(
            may_connect(address, self._limits.allowed_networks) for address in addresses
        ):
            raise _unreachable()
        return addresses


def _unreachable() -> UnfetchableUrl:
    return UnfetchableUrl("the host of this URL cannot be reached; it must answer at a public address")
