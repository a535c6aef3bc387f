"""The HTTP server of a replica ticks once a second, and still renews its Date header each second."""

import asyncio

import pytest
import uvicorn

from deployments.observability.telemetry import slow_tick


@pytest.mark.anyio
async def test_a_server_ticks_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.Server, "on_tick", slow_tick(uvicorn.Server.on_tick))
    server = uvicorn.Server(uvicorn.Config(lambda: None))
    server.config.load()
    slept_s, dates = [], []

    async def sleep(seconds: float) -> None:
        slept_s.append(seconds)
        dates.append(dict(server.server_state.default_headers).get(b"date"))
        server.server_state.default_headers = []
        server.should_exit = len(slept_s) >= 6

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await server.main_loop()
    assert sum(slept_s) == pytest.approx(3)
    assert [date is not None for date in dates] == [True, False] * 3
