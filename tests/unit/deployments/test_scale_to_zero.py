"""Scale to zero: encoders are not started to be described, and their state is reported."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.serve._private.common import ReplicaState
from ray.serve.schema import ApplicationStatus

from core.types import EncoderInfo, LedgerCounts
from deployments.replicas import handles
from deployments.replicas.handles import HandleEncoder, LastInfos, Scale, Scales
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
        self.scale, self.replicas = Scale(), Replicas()
        self.encoder = HandleEncoder("model", 5, self.report)
        monkeypatch.setattr(self.encoder, "_replicas", self.replicas)

    async def report(self, _name: str) -> Scale:
        return self.scale

    def described(self, times: int = 3) -> int:
        """Describe the encoder; returns how often it was asked until now."""
        for _ in range(times):
            assert asyncio.run(self.encoder.describe()).name == "model"
        return self.replicas.calls.count("describe")


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
    assert len(asyncio.run(served.encoder.encode(["red"])).vectors) == 1
    assert served.replicas.calls == ["encode"]


def test_a_deployment_that_has_answered_is_not_asked_again(served: Served) -> None:
    served.scale = Scale(at_zero=True, deployed_at=1.0)
    assert served.described() == 1
    served.scale = Scale(at_zero=False, deployed_at=2.0)
    asyncio.run(served.encoder.encode(["red"]))
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


def reported(last_infos: LastInfos | None = None) -> ModelStatus:
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
    last_info = None if last_infos is None else last_infos.of
    (found,) = asyncio.run(Status(*parts, check, at_zero, last_info).models())
    return found


def last_infos(served: Served, deployed_at: float | None) -> LastInfos:
    """Note what an encoder says when it is asked for work during this deployment."""
    infos = LastInfos(served.report)
    encoder = HandleEncoder("model", 5, note=infos.note)
    encoder._replicas = served.encoder._replicas
    served.scale = Scale(at_zero=False, deployed_at=deployed_at)

    async def encode() -> None:
        await encoder.encode(["red"])
        await asyncio.gather(*infos._notes.values())

    asyncio.run(encode())
    return infos


def test_a_model_at_zero_is_reported_by_the_register_and_not_asked() -> None:
    found = reported()
    assert (found.info, found.live, found.problem) == (REGISTERED, True, None)
    assert found.captions is None, "the register does not know"


def test_a_model_at_zero_is_reported_as_it_last_described_itself(served: Served) -> None:
    found = reported(last_infos(served, deployed_at=2.0))
    assert found.info is not None
    assert (found.info.fingerprint, found.live) != (REGISTERED.fingerprint, True)
    assert found.info.captions is not None
    assert found.captions is True


@pytest.mark.parametrize("deployed_at", [1.0, None])
def test_what_another_deployment_said_is_not_reported(served: Served, deployed_at: float | None) -> None:
    found = reported(last_infos(served, deployed_at))
    assert (found.info, found.captions) == (REGISTERED, None)


def test_a_gateway_keeps_what_an_encoder_said_and_asks_serve_once_in_a_while() -> None:
    asked: list[str] = []

    async def scale(name: str) -> Scale:
        asked.append(name)
        return AT_ZERO

    async def note() -> None:
        for _ in range(5):
            infos.note(REGISTERED)
            await asyncio.sleep(0)

    infos = LastInfos(scale)
    asyncio.run(note())
    assert asked == ["model"]
    assert infos.of("model", AT_ZERO) == REGISTERED
