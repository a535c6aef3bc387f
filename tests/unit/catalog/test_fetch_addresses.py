"""Public and private addresses of the fetcher."""

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from catalog.fetching.connections import FetchLimits, may_connect
from catalog.fetching.texts import is_url

PRIVATE = """
    0.0.0.0 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254
    172.16.0.1 192.0.0.192 192.0.2.1 192.168.1.1 198.18.0.1 224.0.0.1 239.255.255.250 240.0.0.1
    255.255.255.255 :: ::1 ::127.0.0.1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:169.254.169.254
    ::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::8.8.8.8 2002:7f00:1::
    2002:a9fe:a9fe::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1 fc00::1 fd00:ec2::254 fe80::1
    fe80::1%eth0 fec0::1 ff02::1 100::1
"""
PUBLIC = """
    8.8.8.8 1.1.1.1 172.32.0.1 2606:4700:4700::1111 64:ff9b::8.8.8.8 ::ffff:8.8.8.8
"""


@pytest.mark.parametrize("address", [*PRIVATE.split(), *PUBLIC.split()])
def test_only_a_public_address_passes(address: str) -> None:
    assert may_connect(address) == (address in PUBLIC.split())


@pytest.mark.parametrize(
    "text", ["http://a/b", " HTTPS://a/b", "//cdn.shop.test/a.jpg", "data:image/png;base64,AA"]
)
def test_what_names_a_file_by_url_differs_from_base64_and_paths(text: str) -> None:
    assert is_url(text)
    assert not any(map(is_url, ("//8AAA", "/9j/4AAQ", "images/a.jpg", "shop.test/a.jpg", "")))


def test_an_allowed_network_opens_its_own_addresses_only() -> None:
    allowed = (ip_network("10.1.0.0/16"), ip_network("fd12::/16"))
    assert may_connect("10.1.2.3", allowed)
    assert may_connect("::ffff:10.1.2.3", allowed)
    assert may_connect("fd12::1", allowed)
    assert not may_connect("10.2.0.1", allowed)
    assert not may_connect("fd13::1", allowed)


@pytest.mark.parametrize("host", ["https://shop.test", "*.shop.test", "shop.test:80", "a b.test", ""])
def test_an_allowed_host_is_a_name_alone(host: str) -> None:
    with pytest.raises(ValidationError, match="is no host name; write it alone"):
        FetchLimits(allowed_hosts=(host,))
