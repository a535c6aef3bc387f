"""Configuration of Milvus: its address, and the indexes of its collections."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from core.config import Config
from core.errors import ConfigError
from core.filters import MAX_STRING, Kind
from milvus.schema import check_field

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


class IndexedAttribute(Config):
    """An attribute of products that is stored in a field of its own."""

    name: str = Field(min_length=1, max_length=MAX_STRING, description="Name of the attribute.")
    type: Kind = Field(
        description="Type of its values: string, number or bool. A product whose value is of another type, a list, "
        "or a string of more than 1,024 characters is refused."
    )


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
    indexed_attributes: tuple[IndexedAttribute, ...] = Field(
        (),
        max_length=32,
        description="Attributes that filters name often. Each is stored in a field of its own, which a server "
        "indexes. Another list makes another collection of each model, which `vitrine build` fills by copying the "
        "vectors.",
    )

    @property
    def attribute_kinds(self) -> Mapping[str, Kind]:
        """The types of `indexed_attributes` by name."""
        return {each.name: each.type for each in self.indexed_attributes}

    @property
    def index_schema(self) -> str:
        """Eight hex digits over `indexed_attributes` in any order; empty without any. Part of collections' names."""
        if not self.indexed_attributes:
            return ""
        content = json.dumps(sorted(self.attribute_kinds.items()))
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    @property
    def is_rebuilt_if_empty(self) -> bool:
        """The value of `rebuilt_if_empty`, or the default for this address."""
        return self.uri.startswith("unix:") if self.rebuilt_if_empty is None else self.rebuilt_if_empty

    @model_validator(mode="after")
    def _check_uri(self) -> Self:
        check_uri(self.uri)
        return self

    @field_validator("indexed_attributes")
    @classmethod
    def _check_attributes(cls, attributes: tuple[IndexedAttribute, ...]) -> tuple[IndexedAttribute, ...]:
        names = [each.name for each in attributes]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"the attribute {name!r} is declared twice")
            check_field(name)
        return attributes


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
