"""Scale to zero: encoders that are woken, and the status of those that are away."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.serve._private.common import ReplicaState
from ray.serve.schema import ApplicationStatus

from core.types import EncoderInfo
from deployments.replicas import handles
from deployments.replicas.handles import Rest, Rests, SleepingEncoder
from deployments.services import status
from deployments.services.encoders import EncoderSet
from deployments.services.status import Status
from tests.support.local_encoder import LocalEncoder


class Counted(LocalEncoder):
    def __init__(self) -> None:
        super().__init__("model")
        self.described = 0

    async def describe(self) -> EncoderInfo:
        self.described += 1
        return await super().describe()


class Serve:
    rest = Rest()

    async def of(self, name: str) -> Rest:
        return self.rest


def described(encoder: SleepingEncoder, times: int = 3) -> None:
    async def describe() -> None:
        for _ in range(times):
            assert (await encoder.describe()).name == "model"

    asyncio.run(describe())


def test_who_is_awake_is_asked() -> None:
    inner, serve = Counted(), Serve()
    serve.rest = Rest(asleep=False, deployed_at=1.0)
    described(SleepingEncoder(inner, serve.of))
    assert inner.described == 3


def test_who_sleeps_is_asked_once_and_again_after_a_deployment() -> None:
    inner, serve = Counted(), Serve()
    encoder = SleepingEncoder(inner, serve.of)
    serve.rest = Rest(asleep=True, deployed_at=1.0)
    described(encoder)
    assert inner.described == 1
    serve.rest = Rest(asleep=True, deployed_at=2.0)
    described(encoder)
    assert inner.described == 2


def test_what_was_said_during_a_deployment_is_not_believed() -> None:
    inner, serve = Counted(), Serve()
    serve.rest = Rest(asleep=True, deployed_at=None)
    described(SleepingEncoder(inner, serve.of))
    assert inner.described == 3


def test_work_goes_through() -> None:
    serve = Serve()
    serve.rest = Rest(asleep=True, deployed_at=1.0)
    encoded = asyncio.run(SleepingEncoder(Counted(), serve.of).encode(["red"]))
    assert len(encoded.vectors) == 1


@pytest.mark.parametrize(
    ("states", "status", "rest"),
    [
        ({"RUNNING": 1}, "RUNNING", Rest(False, 3.0)),
        ({"RUNNING": 1, "STARTING": 1}, "RUNNING", Rest(False, 3.0)),
        ({}, "RUNNING", Rest(True, 3.0)),
        ({"STARTING": 1}, "RUNNING", Rest(True, 3.0)),
        ({"STARTING": 1}, "DEPLOYING", Rest(True, None)),
        ({}, "DEPLOY_FAILED", Rest(True, None)),
        ({"STARTING": 1}, "UNHEALTHY", Rest(True, None)),
    ],
)
def test_who_sleeps_is_who_has_no_replica_and_lacks_none(
    states: dict[str, int], status: str, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = SimpleNamespace(replica_states={ReplicaState(name): count for name, count in states.items()})
    application = SimpleNamespace(
        deployments={"Encoder": deployment}, status=ApplicationStatus(status), last_deployed_time_s=3.0
    )
    told = SimpleNamespace(applications={"model": application})
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.serve.status", lambda: told)
    found = asyncio.run(Rests().of("model"))
    assert found == rest
    assert found.is_sound == (rest.asleep and status == "RUNNING")


def test_without_serve_everyone_is_awake() -> None:
    assert asyncio.run(Rests().of("model")) == Rest()


def test_a_controller_that_hangs_keeps_nobody_and_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    go_on = threading.Event()

    def read() -> dict[str, Rest]:
        asked.append("controller")
        go_on.wait()
        return {"model": Rest(asleep=True, deployed_at=1.0)}

    async def ask() -> None:
        rests = Rests()
        assert [await rests.of("model") for _ in range(3)] == [Rest()] * 3
        go_on.set()
        while not (await rests.of("model")).asleep:
            await asyncio.sleep(0.01)
        assert len(asked) == 1

    monkeypatch.setattr(handles, "_read_rests", read)
    monkeypatch.setattr(handles, "PATIENCE_S", 0.05)
    asyncio.run(ask())


class Sleeping(LocalEncoder):
    async def describe(self) -> EncoderInfo:
        await asyncio.sleep(60)
        return await super().describe()


def test_nobody_waits_for_a_model_that_sleeps_to_hear_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "READY_TIMEOUT_S", 0.05)
    encoders = EncoderSet(["sleeper"], lambda name: Sleeping(name))
    nothing = cast(Any, None)
    (told,) = asyncio.run(Status(nothing, nothing, encoders, nothing, 0.9, nothing, nothing).models())
    assert told.info is None
    assert told.problem is not None
    assert "no answer within" in told.problem
