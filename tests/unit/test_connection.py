"""What a client is told of Milvus, and what the logs are."""

import grpc
import pytest
from pymilvus import MilvusClient, MilvusException

from core.errors import NotFound, StoreUnavailable
from milvus.config import MilvusConfig
from milvus.connection import NOT_FOUND, Connection


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
    "error",
    [
        MilvusException(1100, "cannot parse expression at 10.0.0.7"),
        Refusal("at 10.0.0.7"),
        ValueError("10.0.0.7"),
    ],
)
def test_why_milvus_refuses_is_for_the_logs(
    connection: Connection, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(client: MilvusClient, left_s: float) -> None:
        raise error

    with pytest.raises(StoreUnavailable) as caught:
        connection.call(refuse)
    assert "10.0.0.7" not in caught.value.message
    assert "10.0.0.7" in caplog.text
    assert caught.value.__cause__ is error


def test_a_collection_that_is_missing_is_not_found(connection: Connection) -> None:
    def miss(client: MilvusClient, left_s: float) -> None:
        raise MilvusException(NOT_FOUND, "collection not found[collection=a]")

    with pytest.raises(NotFound, match="collection=a"):
        connection.call(miss)
