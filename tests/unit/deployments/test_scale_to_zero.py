"""Scale to zero: encoders are not started to be described, and their state is reported."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.serve._private.common import ReplicaState
from ray.serve.schema import ApplicationStatus

from core.types import EncoderInfo, LedgerCounts
from deployments.replicas import handles
from deployments.replicas.handles import HandleEncoder, Scale, Scales
from deployments.services import status
from deployments.services.encoders import EncoderSet
from deployments.services.status import ModelStatus, Status
from models.config import CaptionConfig
from tests.support.local_encoder import LocalEncoder


class Replicas:
    """Stands in for the handle of an encoder's application; remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def call(self, method: str, *args: Any) -> Any:
        self.calls.append(method)
        return await getattr(LocalEncoder("model", captions=CaptionConfig()), method)(*args)


class Served:
    """An encoder whose state Serve reports as set here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handles, "INFO_TTL_S", -1.0)
        monkeypatch.setattr(handles, "SCALE_TTL_S", 0.0)
        monkeypatch.setattr(handles, "NOTED_TTL_S", 0.0)
        self.scale, self.replicas, self.reports = Scale(), Replicas(), 0
        self.encoder = HandleEncoder("model", 5, self.report, starts=False)
        monkeypatch.setattr(self.encoder, "_replicas", self.replicas)

    async def report(self, _name: str) -> Scale:
        self.reports += 1
        return self.scale

    def run(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make a call, and let the encoder note the deployment that has answered."""

        async def noted() -> None:
            await call()
            if self.encoder._note is not None and not self.encoder._note.done():
                await self.encoder._note

        asyncio.run(noted())

    def described(self, times: int = 3) -> int:
        """Describe the encoder; returns how often it was asked until now."""
        for _ in range(times):
            self.run(self.encoder.describe)
        return self.replicas.calls.count("describe")

    def work(self) -> None:
        self.run(lambda: self.encoder.encode(["red"]))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    return Served(monkeypatch)


def test_an_encoder_that_runs_is_asked(served: Served) -> None:
    served.scale = Scale(at_zero=False, deployed_at=1.0)
    assert served.described() == 3


def test_an_encoder_at_zero_is_asked_once_and_again_after_a_deployment(served: Served) -> None:
    served.scale = Scale(at_zero=True, deployed_at=1.0)
    assert served.described() == 1
    served.scale = Scale(at_zero=True, deployed_at=2.0)
    assert served.described() == 2


def test_a_description_given_during_a_deployment_is_not_kept(served: Served) -> None:
    served.scale = Scale(at_zero=True, deployed_at=None)
    assert served.described() == 3


def test_work_starts_an_encoder_at_zero(served: Served) -> None:
    served.scale = Scale(at_zero=True, deployed_at=1.0)
    served.work()
    assert served.replicas.calls == ["encode"]


def test_a_deployment_that_has_answered_is_not_asked_again(served: Served) -> None:
    served.scale = Scale(at_zero=True, deployed_at=1.0)
    assert served.described() == 1
    served.scale = Scale(at_zero=False, deployed_at=2.0)
    served.work()
    served.scale = Scale(at_zero=True, deployed_at=2.0)
    assert served.described() == 1


@pytest.mark.parametrize(
    ("states", "status", "scale"),
    [
        ({"RUNNING": 1}, "RUNNING", Scale(False, 3.0)),
        ({"RUNNING": 1, "STARTING": 1}, "RUNNING", Scale(False, 3.0)),
        ({}, "RUNNING", Scale(True, 3.0)),
        ({"STARTING": 1}, "RUNNING", Scale(True, 3.0)),
        ({"STARTING": 1}, "DEPLOYING", Scale(True, None)),
        ({}, "DEPLOY_FAILED", Scale(True, None)),
        ({"STARTING": 1}, "UNHEALTHY", Scale(True, None)),
    ],
)
def test_an_encoder_is_idle_when_it_has_no_replica_and_nothing_failed(
    states: dict[str, int], status: str, scale: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = SimpleNamespace(replica_states={ReplicaState(name): count for name, count in states.items()})
    application = SimpleNamespace(
        deployments={"Encoder": deployment}, status=ApplicationStatus(status), last_deployed_time_s=3.0
    )
    reported = SimpleNamespace(applications={"model": application})
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.serve.status", lambda: reported)
    found = asyncio.run(Scales().of("model"))
    assert found == scale
    assert found.is_idle == (scale.at_zero and status == "RUNNING")


def test_without_serve_every_encoder_counts_as_running() -> None:
    assert asyncio.run(Scales().of("model")) == Scale()


def test_a_controller_that_hangs_delays_nobody_for_long_and_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    go_on = threading.Event()

    def read() -> dict[str, Scale]:
        asked.append("controller")
        go_on.wait()
        return {"model": Scale(at_zero=True, deployed_at=1.0)}

    async def ask() -> None:
        scales = Scales()
        assert [await scales.of("model") for _ in range(3)] == [Scale()] * 3
        go_on.set()
        while not (await scales.of("model")).at_zero:
            await asyncio.sleep(0.01)
        assert len(asked) == 1

    monkeypatch.setattr(handles, "_scales", read)
    monkeypatch.setattr(handles, "SCALE_TIMEOUT_S", 0.05)
    asyncio.run(ask())


REGISTERED = asyncio.run(LocalEncoder("model", checkpoint="another").describe())


class Hanging(LocalEncoder):
    async def describe(self) -> EncoderInfo:
        await asyncio.sleep(60)
        return await super().describe()


def test_a_model_that_does_not_answer_is_reported_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "READY_TIMEOUT_S", 0.05)
    encoders = EncoderSet(["model"], Hanging)
    nothing = cast(Any, None)
    (found,) = asyncio.run(Status(nothing, nothing, encoders, nothing, 0.9, nothing, nothing).models())
    assert found.info is None
    assert found.problem is not None
    assert "no answer within" in found.problem


AT_ZERO = Scale(at_zero=True, deployed_at=2.0)


def reported(last_info: Callable[[str, Scale], EncoderInfo | None] | None = None) -> ModelStatus:
    """Report a model at zero, whose live version is `REGISTERED`."""
    catalog = SimpleNamespace(ledger=SimpleNamespace(versions=lambda: [REGISTERED]))
    store = SimpleNamespace(alias_target=lambda _name: REGISTERED.collection)

    class Counts:
        async def get(self, _collection: str) -> LedgerCounts:
            return LedgerCounts(1, 1, 0, 0)

    async def at_zero(_name: str) -> Scale:
        return AT_ZERO

    parts: Any = (catalog, store, EncoderSet(["model"], Hanging), None, 0.9, Counts())
    check: Any = SimpleNamespace(require=lambda: None)
    (found,) = asyncio.run(Status(*parts, check, at_zero, last_info).models())
    return found


def test_a_model_at_zero_is_reported_as_it_last_described_itself(served: Served) -> None:
    served.scale = Scale(at_zero=False, deployed_at=2.0)
    served.work()
    found = reported(lambda _name, scale: served.encoder.last_info(scale))
    assert found.info is not None
    assert (found.info.fingerprint, found.live) != (REGISTERED.fingerprint, True)
    assert found.info.captions is not None
    assert found.captions is True
    assert found.reranks is True


@pytest.mark.parametrize("deployed_at", [1.0, None])
def test_what_another_deployment_said_is_not_reported(served: Served, deployed_at: float | None) -> None:
    served.scale = Scale(at_zero=False, deployed_at=deployed_at)
    served.work()
    found = reported(lambda _name, scale: served.encoder.last_info(scale))
    assert (found.info, found.captions, found.reranks) == (REGISTERED, None, None)


def test_work_asks_serve_for_the_deployment_once_in_a_while(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "NOTED_TTL_S", 60.0)
    for _ in range(5):
        served.work()
    assert served.reports == 1
