"""Configuration of Milvus: its address, and the index of its collections."""

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from core.config import Config
from core.errors import ConfigError

MAX_SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux: `sun_path` has 108 bytes with the closing zero (unix(7))."""

IndexType = Literal["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "AUTOINDEX", "DISKANN", "SCANN"]
EXACT_INDEXES = frozenset({"FLAT"})


class IndexConfig(Config):
    """Index of a collection's vectors; the metric is always COSINE."""

    index_type: IndexType | None = Field(
        None, description="Milvus index type; by default FLAT on Milvus Lite and HNSW on a server."
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="Build parameters, such as M and efConstruction for HNSW."
    )
    search_params: dict[str, Any] = Field(
        default_factory=dict, description="Search parameters that replace the computed ones, such as nprobe."
    )
    shards: int = Field(
        1,
        ge=1,
        le=16,
        description="Channels that writes to a new collection go through side by side; one more for each 100 GB "
        "of vectors. Milvus Lite has one.",
    )
    min_ef: int = Field(256, ge=1, description="Smallest ef of an HNSW search.")
    max_ef: int = Field(16384, ge=1, le=32768, description="Largest ef of an HNSW search under a filter.")


class MilvusConfig(Config):
    """The connection to Milvus, or to the owner process of a Milvus Lite folder."""

    uri: str = Field(description="unix:/path/to.sock, http://host:port or https://host:port.")
    token: str = Field("", description="user:password or an API key; empty without authentication.")
    timeout_s: float = Field(10.0, gt=0, description="How long one call may take, reconnecting included.")
    build_timeout_s: float = Field(120.0, gt=0, description="How long creating and loading may take.")
    consistency: Literal["Strong", "Session", "Bounded", "Eventually"] = Field(
        "Session", description="Consistency level of reads; writes always wait until every reader sees them."
    )
    rebuilt_if_empty: bool | None = Field(
        None,
        description="Whether an empty Milvus is filled anew without asking, since its data was deleted; by default "
        "that of a unix: address, which is a folder of this service's own.",
    )
    index: IndexConfig = Field(IndexConfig(), description="How new collections are indexed.")

    @property
    def is_rebuilt_if_empty(self) -> bool:
        """The value of `rebuilt_if_empty`, or the default for this address."""
        return self.uri.startswith("unix:") if self.rebuilt_if_empty is None else self.rebuilt_if_empty

    @model_validator(mode="after")
    def _check_uri(self) -> Self:
        check_uri(self.uri)
        return self


def check_uri(uri: str) -> None:
    """Refuse an address that cannot work.

    Raises:
        ConfigError: an unknown scheme, a missing host, or a socket path beyond what the kernel takes.
    """
    if uri.startswith("unix:"):
        path = socket_path(uri)
        if not path.startswith("/"):
            raise ConfigError(f"{uri}: the path of a unix socket must be absolute")
        if len(path.encode()) > MAX_SOCKET_PATH_BYTES:
            raise ConfigError(
                f"{uri}: the socket path has {len(path.encode())} bytes, "
                f"at most {MAX_SOCKET_PATH_BYTES} are possible; choose a shorter folder"
            )
    elif urlsplit(uri).scheme not in ("http", "https") or not urlsplit(uri).hostname:
        raise ConfigError(f"{uri}: expected unix:/path, http://host:port or https://host:port")


def socket_path(uri: str) -> str:
    """The file system path of a `unix:` address."""
    return uri.removeprefix("unix://").removeprefix("unix:")
