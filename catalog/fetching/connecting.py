"""Connections that go to checked addresses only."""

from collections.abc import Iterable

import httpcore
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from catalog.fetching.addresses import may_connect
from catalog.fetching.config import FetchLimits
from catalog.fetching.resolving import Resolver
from core.errors import UnfetchableUrl

_ATTEMPTS = 4
"""Addresses of one host that are tried."""


class CheckedBackend(AsyncNetworkBackend):
    """Resolves a host once, checks every address, and connects to what it checked.

    Between a check and a second look-up the name could change its address (DNS rebinding), so there is
    no second look-up. TLS still verifies the certificate against the name of the URL.
    """

    def __init__(self, limits: FetchLimits, resolve: Resolver, network: AsyncNetworkBackend) -> None:
        self._limits = limits
        self._open_hosts = {host.lower().rstrip(".") for host in limits.allowed_hosts}
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
            UnfetchableUrl: an address is not public, the name has none, or none answers. It is one
                message for all of these: whoever asks must not learn which names and ports exist in
                our network.
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
        if host.lower().rstrip(".") not in self._open_hosts and not all(
            may_connect(address, self._limits.allowed_networks) for address in addresses
        ):
            raise _unreachable()
        return addresses


def _unreachable() -> UnfetchableUrl:
    return UnfetchableUrl("the host of this URL cannot be reached; it must answer at a public address")
