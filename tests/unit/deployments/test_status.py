"""What is told of models that are away."""

import asyncio
from typing import Any, cast

import pytest

from core.types import EncoderInfo
from deployments import status
from deployments.encoders import EncoderSet
from deployments.status import Status
from tests.local_encoder import LocalEncoder


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
