"""A dashboard that does not answer ends no job in a wait without end."""

import socket
from collections.abc import Iterator

import pytest

from core.errors import Unavailable
from jobs.dashboard import deploy, serve_details


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A dashboard that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr("jobs.dashboard._ANSWER_S", 0.1)
        yield


@pytest.mark.usefixtures("silent")
def test_a_dashboard_that_says_nothing_is_away() -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        serve_details()
    with pytest.raises(Unavailable, match="does not take the configuration"):
        deploy({"applications": []})
