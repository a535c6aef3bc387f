"""Calls to replicas: what is repeated, what is not, and how long they may take."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from core.errors import DeadlineExceeded, InvalidInput, ModelUnavailable
from deployments.deadlines import Deadline, ending_at, within_deadline
from deployments.handles import DeploymentHandle

pytestmark = pytest.mark.anyio


class Response:
    """Stands in for Serve's response: awaited once, or cancelled."""

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


async def test_a_call_that_died_with_its_replica_is_repeated_once(connect: Any) -> None:
    handle, replicas = connect(ActorDiedError(), "answer")
    assert await handle.call("encode", ["red"]) == "answer"
    assert len(replicas.calls) == 2


async def test_a_second_death_is_told_as_unavailable(connect: Any) -> None:
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


async def test_a_replica_that_hangs_is_given_up_and_told_so(connect: Any) -> None:
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
