"""The running configuration, read so that it can be handed back."""

from typing import Any

import pytest

from core.errors import ConfigError, Unavailable
from jobs.upgrade.serving import Rollout, RunningServe

DETAILS: dict[str, Any] = {
    "proxy_location": "HeadOnly",
    "http_options": {"port": 8000},
    "target_capacity": None,
    "controller_info": {"node_id": "n"},
    "applications": {
        "dinov2": {
            "status": "DEPLOYING",
            "message": "",
            "deployed_app_config": {"name": "dinov2", "args": {"checkpoint": "${WEIGHTS}/base"}},
            "deployments": {"Encoder": {"message": "starting"}},
        }
    },
}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> RunningServe:
    monkeypatch.setattr("jobs.upgrade.serving.serve_details", lambda: DETAILS)
    return RunningServe()


def test_what_runs_is_told_as_serve_takes_it(serve: RunningServe) -> None:
    assert serve.config() == {
        "proxy_location": "HeadOnly",
        "http_options": {"port": 8000},
        "applications": [{"name": "dinov2", "args": {"checkpoint": "${WEIGHTS}/base"}}],
    }


def test_an_application_without_a_configuration_cannot_be_handed_back(
    serve: RunningServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    imperative = {"applications": {**DETAILS["applications"], "other": {"deployed_app_config": None}}}
    monkeypatch.setattr("jobs.upgrade.serving.serve_details", lambda: imperative)
    with pytest.raises(ConfigError, match="'other' was not started from a Serve configuration"):
        serve.config()


def test_a_rollout_tells_status_and_reasons(serve: RunningServe) -> None:
    assert serve.rollout("dinov2") == Rollout("DEPLOYING", "starting")
    with pytest.raises(Unavailable, match="no application 'clip'"):
        serve.rollout("clip")
