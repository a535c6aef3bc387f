"""Configuration and connection of Milvus: addresses, the messages of refusals, and aliases."""

from unittest.mock import Mock

import grpc
import pytest
from pydantic import ValidationError
from pymilvus import MilvusException

import milvus
from core.errors import ConfigError, NotFound, StoreUnavailable
from milvus.collections import point_alias
from milvus.config import MilvusConfig
from milvus.connection import ALIAS_NOT_FOUND, NOT_FOUND, Connection
from milvus.lite import LiteOwner


@pytest.mark.parametrize(
    "uri", ["unix:/tmp/m.sock", "http://milvus:19530", "https://host", "unix:///tmp/m.sock"]
)
def test_an_address_of_milvus_is_accepted(uri: str) -> None:
    assert MilvusConfig(uri=uri).uri == uri


@pytest.mark.parametrize(
    "uri", ["", "milvus.db", "unix:relative.sock", "ftp://host", "http://", f"unix:/{'x' * 107}"]
)
def test_an_address_that_cannot_work_is_refused(uri: str) -> None:
    with pytest.raises(ValidationError):
        MilvusConfig(uri=uri)
    with pytest.raises(ConfigError):
        LiteOwner("folder", uri)


def test_a_socket_path_beyond_the_kernel_is_explained() -> None:
    with pytest.raises(ValidationError, match="120 bytes, at most 107"):
        MilvusConfig(uri=f"unix:/{'x' * 119}")


def test_the_package_is_ours() -> None:
    assert milvus.__file__ is not None
    assert "site-packages" not in milvus.__file__


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connection:
    made = Connection(MilvusConfig(uri="http://127.0.0.1:1"))
    monkeypatch.setattr(made, "_connect", lambda deadline: None)
    return made


class Refusal(grpc.RpcError):  # type: ignore[misc]
    """An error of gRPC itself."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "error", [MilvusException(1100, "no expression at 10.0.0.7"), Refusal("10.0.0.7"), ValueError("10.0.0.7")]
)
def test_why_milvus_refuses_is_for_the_logs(
    connection: Connection, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        connection.call(Mock(side_effect=error))
    assert "10.0.0.7" not in caught.value.message
    assert "10.0.0.7" in caplog.text
    assert caught.value.__cause__ is error


def test_a_collection_that_is_missing_is_not_found(connection: Connection) -> None:
    missing = MilvusException(NOT_FOUND, "collection not found[collection=a]")
    with pytest.raises(NotFound, match="collection=a"):
        connection.call(Mock(side_effect=missing))


@pytest.mark.parametrize("failing", ["describe_alias", "alter_alias"])
def test_an_alias_is_not_made_because_something_else_fails(failing: str, connection: Connection) -> None:
    client = Mock(**{f"{failing}.side_effect": MilvusException(1100, "no permission")})
    with pytest.raises(StoreUnavailable):
        connection.call(lambda _, left_s: point_alias(client, "live", "live_1", left_s))
    client.create_alias.assert_not_called()


@pytest.mark.parametrize("code", [NOT_FOUND, ALIAS_NOT_FOUND])
def test_an_alias_that_is_missing_is_made(code: int) -> None:
    client = Mock(**{"describe_alias.side_effect": MilvusException(code, "no alias")})
    point_alias(client, "live", "live_1", 1)
    client.create_alias.assert_called_once_with("live_1", "live", timeout=1)
