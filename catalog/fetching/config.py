"""What a URL from a caller may cost, and where it may lead."""

from ipaddress import IPv4Network, IPv6Network

from pydantic import Field

from core.config import Config


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
