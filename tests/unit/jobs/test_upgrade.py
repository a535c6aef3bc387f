"""Steps of an upgrade: the change, the running configuration, the evaluation, a silent dashboard."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from core.errors import ConfigError, Unavailable
from core.jobs import EvaluateArgs
from jobs.evaluation.result import QualityGateDecision
from jobs.runner.context import JobContext
from jobs.runner.settings import EncoderSettings, deploy, serve_details
from jobs.upgrade.promote import compare
from jobs.upgrade.serving import RolloutStatus, RunningServe, arguments, change
from models.config import EncoderConfig
from tests.support.upgrade_stage import job_settings

ENCODER = "deployments.app:build_encoder"
CONFIG = {
    "http_options": {"port": 8000},
    "applications": [
        {
            "name": "dinov2",
            "import_path": ENCODER,
            "args": {"name": "dinov2", "family": "dinov2", "checkpoint": "${WEIGHTS}/base", "threads": 2},
        },
        {"name": "openclip", "import_path": ENCODER, "args": {"name": "openclip"}},
        {"name": "gateway", "import_path": "deployments.app:build_gateway", "args": {}},
    ],
}


def test_only_the_version_of_the_one_encoder_changes() -> None:
    changed = change(CONFIG, "dinov2", {"family": "dinov2", "checkpoint": "large", "pooling": "mean"})
    assert arguments(changed.after, "dinov2") == {
        "name": "dinov2",
        "family": "dinov2",
        "checkpoint": "large",
        "threads": 2,
        "pooling": "mean",
    }
    assert changed.after["applications"][1:] == CONFIG["applications"][1:]
    assert changed.after["http_options"] == CONFIG["http_options"]
    assert changed


def test_what_a_version_does_not_state_goes_and_going_back_gives_the_same() -> None:
    there = change(CONFIG, "dinov2", {"family": "dinov2", "checkpoint": "large", "pooling": "mean"})
    back = change(there.after, "dinov2", {"family": "dinov2", "checkpoint": "${WEIGHTS}/base"})
    assert back.after == CONFIG
    assert not change(CONFIG, "dinov2", {"family": "dinov2", "checkpoint": "${WEIGHTS}/base"})


def test_the_difference_shows_the_changed_lines_only() -> None:
    lines = change(CONFIG, "dinov2", {"family": "dinov2", "checkpoint": "large"}).diff.splitlines()
    assert [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")] == [
        "-checkpoint: ${WEIGHTS}/base",
        "+checkpoint: large",
    ]


def test_the_patch_of_a_rayservice_holds_the_whole_configuration() -> None:
    changed = change(CONFIG, "dinov2", {"family": "dinov2", "checkpoint": "large"})
    patch = yaml.safe_load(changed.rayservice_patch)
    assert yaml.safe_load(patch["spec"]["serveConfigV2"]) == changed.after


def test_a_model_that_is_not_configured_is_refused() -> None:
    with pytest.raises(ConfigError, match="no encoder 'gateway'"):
        change(CONFIG, "gateway", {})


DETAILS: dict[str, Any] = {
    "proxy_location": "HeadOnly",
    "http_options": {"port": 8000},
    "target_capacity": None,
    "controller_info": {"node_id": "n"},
    "applications": {
        "dinov2": {
            "status": "DEPLOYING",
            "message": "",
            "last_deployed_time_s": 12.5,
            "deployed_app_config": {"name": "dinov2", "args": {"checkpoint": "${WEIGHTS}/base"}},
            "deployments": {"Encoder": {"message": "starting"}},
        }
    },
}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> RunningServe:
    monkeypatch.setattr("jobs.upgrade.serving.serve_details", lambda: DETAILS)
    return RunningServe()


def test_what_runs_is_read_as_serve_takes_it(serve: RunningServe) -> None:
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
    assert serve.rollout("dinov2") == RolloutStatus("DEPLOYING", "starting", 12.5)
    with pytest.raises(Unavailable, match="no application 'clip'"):
        serve.rollout("clip")


def encoder(**fields: Any) -> EncoderSettings:
    config = EncoderConfig(name="dinov2", family="dinov2", **fields)
    return EncoderSettings(config, num_cpus=1, num_gpus=0)


def test_the_candidate_is_compared_with_what_runs_even_where_another_file_describes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[JobContext, EvaluateArgs, EncoderSettings]] = []
    decision = QualityGateDecision(True, "passed", "map", None)

    def evaluate(context: JobContext, args: EvaluateArgs, candidate: EncoderSettings) -> Any:
        asked.append((context, args, candidate))
        return SimpleNamespace(decision=decision)

    monkeypatch.setattr("jobs.upgrade.promote.evaluate", evaluate)
    live, candidate = encoder(checkpoint="base"), encoder(checkpoint="large", pooling="mean")
    settings = job_settings(encoders={"dinov2": candidate})
    context = JobContext(None, settings, None)  # type: ignore[arg-type]
    assert compare(context, live, candidate) is decision
    ((given, args, compared),) = asked
    assert (args, compared) == (EvaluateArgs(model="dinov2"), candidate)
    assert given.settings.encoder("dinov2", {}).config == live.config


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A dashboard that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr("jobs.runner.settings._ANSWER_S", 0.1)
        yield


@pytest.mark.usefixtures("silent")
def test_a_dashboard_that_says_nothing_is_away() -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        serve_details()
    with pytest.raises(Unavailable, match="refuses the configuration"):
        deploy({"applications": []})
