"""Which IP addresses are public."""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_FORMALLY_GLOBAL = (
    IPv4Network("168.63.129.16/32"),  # Azure's host answers its guests here
    IPv4Network("192.0.0.0/24"),  # protocol assignments; Oracle's metadata service
    IPv4Network("192.88.99.0/24"),  # the anycast entry to 6to4
)
"""What `is_global` lets pass, or lets pass in some versions of Python, and no picture is served from."""


def may_connect(address: str, allowed: Iterable[IPv4Network | IPv6Network] = ()) -> bool:
    """Tell whether an address literal is public, or lies in one of the allowed networks."""
    parsed = _plain(ip_address(address))
    if any(parsed in network for network in allowed):
        return True
    return _is_public(parsed)


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The kernel connects to ::ffff:a.b.c.d as to a.b.c.d."""
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
    # Outside of 2000::/3 lie ways around the rules for IPv4, as ::127.0.0.1, that is_global lets pass.
    return _is_global(address) and address in _GLOBAL_UNICAST


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast
