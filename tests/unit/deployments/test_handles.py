"""Calls to replicas: what is repeated, what is not, and how long they may take."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any, cast

import grpc
import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
)

from core.errors import DeadlineExceeded, Internal, InvalidInput, ModelUnavailable
from core.ports import EncoderClient
from core.rerank import Matcher
from core.search import ModelSearch
from core.types import PROBE, Encoded
from deployments.http.errors import status_of
from deployments.http.middleware import Deadline, ending_at, within_deadline
from deployments.observability.telemetry import called
from deployments.replicas.encoder import EncoderReplica
from deployments.replicas.handles import DeploymentHandle, HandleEncoder
from milvus.memory import MemoryStore
from models.config import EncoderConfig

pytestmark = pytest.mark.anyio


class Response:
    """Stands in for Serve's response: awaited once, or canceled."""

    def __init__(self, outcome: object) -> None:
        self._outcome = outcome
        self.cancelled = False

    def __await__(self) -> Generator[Any, None, object]:
        return self._answer().__await__()

    def cancel(self) -> None:
        self.cancelled = True

    async def _answer(self) -> object:
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        if self._outcome == "hang":
            await asyncio.sleep(60)
        return self._outcome


class Replicas:
    """Stands in for Serve's handle: each call takes the next outcome."""

    def __init__(self, *outcomes: object) -> None:
        self.calls: list[Response] = []
        self._outcomes = list(outcomes)

    def __getattr__(self, method: str) -> "Replicas":
        return self

    def remote(self, *args: object) -> Response:
        self.calls.append(Response(self._outcomes.pop(0)))
        return self.calls[-1]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[DeploymentHandle, Replicas]]:
    def connected(*outcomes: object, deadline_s: float = 5) -> tuple[DeploymentHandle, Replicas]:
        replicas = Replicas(*outcomes)
        monkeypatch.setattr("ray.serve.get_deployment_handle", lambda *_, **__: replicas)
        return DeploymentHandle("dino", "Encoder", deadline_s), replicas

    return connected


def ended_call(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    """The error of a call by gRPC, as handles of throughput mode make it."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "details")


def raised_by_a_replica(error: Exception) -> RayTaskError:
    """The error as a handle that goes by Ray's actors raises it."""
    wrapped: RayTaskError = RayTaskError("encode", "Traceback of the replica", error).as_instanceof_cause()
    return wrapped


@pytest.mark.parametrize(
    "lost",
    [
        ActorDiedError(),
        ActorUnavailableError("Actor is unavailable.", b"0" * 16),
        raised_by_a_replica(ActorDiedError()),
        ReplicaUnavailableError("r"),
        RequestCancelledError("r"),
        ended_call(grpc.StatusCode.UNAVAILABLE),
        ended_call(grpc.StatusCode.CANCELLED),
        ended_call(grpc.StatusCode.INTERNAL),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_call_that_died_with_its_replica_is_repeated_once(connect: Any, lost: BaseException) -> None:
    handle, replicas = connect(lost, "answer")
    assert await handle.call("encode", ["red"]) == "answer"
    assert len(replicas.calls) == 2


async def test_a_second_death_is_unavailable(connect: Any) -> None:
    handle, replicas = connect(ActorDiedError(), ActorDiedError(), "never asked for")
    with pytest.raises(ModelUnavailable, match="dino is not available"):
        await handle.call("encode", ["red"])
    assert len(replicas.calls) == 2


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (BackPressureError(num_queued_requests=9, max_queued_requests=9), ModelUnavailable),
        (InvalidInput("bad words"), InvalidInput),
    ],
)
async def test_a_refusal_is_not_repeated(connect: Any, raised: Exception, expected: type[Exception]) -> None:
    handle, replicas = connect(raised, "never asked for")
    with pytest.raises(expected):
        await handle.call("encode", ["red"])
    assert len(replicas.calls) == 1


@pytest.mark.parametrize(
    "bug",
    [
        KeyError("box"),
        TimeoutError("of a lock in the replica"),
        raised_by_a_replica(KeyError("box")),
        ended_call(grpc.StatusCode.UNKNOWN),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_bug_is_no_outage_is_not_repeated_and_its_traceback_is_logged(
    connect: Any, bug: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    handle, replicas = connect(bug, "never asked for")
    with pytest.raises(Internal) as caught:
        await handle.call("encode", ["red"])
    assert (status_of(caught.value), caught.value.kind) == (500, "internal")
    assert len(replicas.calls) == 1
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.exc_info is not None
    assert record.exc_info[1] is bug


async def test_a_replica_names_its_own_bug_where_the_traceback_is(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Internal, match="KeyError"), called("encode", "dino", 1):
        raise KeyError("box")
    assert "KeyError: 'box'" in caplog.text
    assert "Traceback" in caplog.text


async def test_what_failed_to_deploy_and_what_is_not_found_are_outages(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, replicas = connect(DeploymentUnavailableError(DeploymentID("Encoder", "dino")), "never asked for")
    with pytest.raises(ModelUnavailable, match="dino is not available"):
        await handle.call("encode", ["red"])
    assert len(replicas.calls) == 1

    def nowhere(*_: object, **__: object) -> object:
        raise RuntimeError("There is no Serve")

    monkeypatch.setattr("ray.serve.get_deployment_handle", nowhere)
    with pytest.raises(ModelUnavailable, match="dino is not available"):
        await DeploymentHandle("dino", "Encoder", 5).call("encode", ["red"])


async def test_a_replica_that_hangs_exceeds_the_deadline(connect: Any) -> None:
    handle, replicas = connect("hang", deadline_s=0.05)
    with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
        await handle.call("encode", ["red"])
    assert [call.cancelled for call in replicas.calls] == [True]


async def test_a_caller_that_goes_away_cancels_the_call(connect: Any) -> None:
    handle, replicas = connect("hang")
    call = asyncio.create_task(handle.call("encode", ["red"]))
    while not replicas.calls:
        await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    assert [call.cancelled for call in replicas.calls] == [True]


async def test_a_call_gets_what_is_left_of_its_request() -> None:
    limits = {}

    async def route(*_: object) -> None:
        await asyncio.sleep(0.05)
        limits["call"] = within_deadline(600)
        limits["short call"] = within_deadline(0.01)
        limits["thread"] = await asyncio.to_thread(within_deadline, 600)
        with ending_at(None):
            limits["after the answer"] = within_deadline(30)

    async def nothing(*_: object) -> Any:
        return None

    scope = {"type": "http", "headers": [], "state": {"request_id": "r"}}
    await Deadline(route, limit_s=60)(scope, nothing, nothing)
    assert 1 < limits["thread"] <= limits["call"] < 59.96
    assert limits["short call"] == 0.01
    assert limits["after the answer"] == within_deadline(30) == 30


async def test_versions_carry_the_index_schema_of_the_service(connect: Any) -> None:
    info = EncoderReplica(EncoderConfig(name="model", family="fake", checkpoint="")).describe
    encoder = HandleEncoder("model", 5, index_schema="0123abcd")
    served = await info()
    encoder._replicas, _ = connect(served, Encoded(served, []))
    assert (await encoder.describe()).collection == f"model_{served.fingerprint}_0123abcd"
    assert (await encoder.encode([])).info == await encoder.describe()


async def test_a_matching_head_is_asked_over_a_handle(connect: Any) -> None:
    replica = EncoderReplica(EncoderConfig(name="model", family="fake"))
    encoder = HandleEncoder("model", 5)
    assert isinstance(encoder, Matcher)
    given = await replica.match("red", [("0" * 64, None)])
    encoder._replicas, calls = connect(given)
    assert await encoder.match("red", [("0" * 64, None)]) == given
    assert len(calls.calls) == 1


async def test_a_circuit_breaker_asks_the_model_itself_and_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = EncoderReplica(EncoderConfig(name="dino", family="fake"))
    search = ModelSearch(cast(EncoderClient, replica), MemoryStore())
    forward, passes = replica._encoder.forward, list[int]()
    monkeypatch.setattr(
        replica._encoder, "forward", lambda batch: passes.append(len(batch)) or forward(batch)
    )
    for _ in range(3):
        await search.reach()
    assert passes == [1, 1, 1]

    def lost(_batch: object) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(replica._encoder, "forward", lost)
    with pytest.raises(ModelUnavailable):
        await search.reach()
    monkeypatch.setattr(replica._encoder, "forward", lambda batch: np.zeros((len(batch), 96), np.float32))
    assert isinstance((await replica.encode([PROBE])).vectors[0], InvalidInput)
    await search.reach()
