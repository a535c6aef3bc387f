"""Replicas wait for what is late, say so, and fail with the reason when it does not come."""

import logging
from pathlib import Path

import pytest

from core.errors import ConfigError, ModelUnavailable, Unavailable
from deployments.replicas import dependencies
from deployments.replicas.dependencies import wait_for
from deployments.replicas.encoder import EncoderReplica
from models.config import EncoderConfig
from models.encoder import load_encoder


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Take the time that pauses would, without them."""
    slept: list[float] = []
    monkeypatch.setattr(dependencies.time, "sleep", slept.append)
    monkeypatch.setattr(dependencies.time, "monotonic", lambda: sum(slept))
    return slept


def test_what_is_late_is_waited_for_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outcomes = [Unavailable("the database does not answer")] * 5

    def attempt() -> str:
        if outcomes:
            raise outcomes.pop()
        return "opened"

    assert wait_for(attempt) == "opened"
    assert [record.getMessage() for record in caplog.records] == [
        "waiting before this replica starts: the database does not answer",
        "what this replica waited for is there",
    ]


def test_what_does_not_come_is_the_reason_that_serve_shows(pauses: list[float]) -> None:
    def attempt() -> None:
        raise Unavailable("the database does not answer")

    with pytest.raises(Unavailable, match="the database does not answer"):
        wait_for(attempt)
    assert dependencies.WAIT_S - 10 <= sum(pauses) <= dependencies.WAIT_S


def test_a_mistake_is_not_waited_for(pauses: list[float]) -> None:
    def attempt() -> None:
        raise ConfigError("there is no such family")

    with pytest.raises(ConfigError):
        wait_for(attempt)
    assert pauses == []


@pytest.mark.parametrize("is_tag", [False, True])
def test_an_encoder_waits_for_weights_that_others_bring(
    is_tag: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    settings = {"checkpoint": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"} if is_tag else {}
    config = EncoderConfig.model_validate(
        {
            "name": "late",
            "family": "openclip",
            "checkpoint": str(tmp_path / "late"),
            "device": "cpu",
            **settings,
        }
    )
    with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE is set"):
        EncoderReplica(config)
    assert "waiting before this replica starts: encoder late: " in caplog.text


def test_without_others_to_bring_them_missing_weights_are_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    config = EncoderConfig.model_validate(
        {"name": "late", "family": "openclip", "checkpoint": str(tmp_path / "late")}
    )
    with pytest.raises(ConfigError, match="does not exist"):
        load_encoder(config)


def test_weights_that_are_there_in_part_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--some-model"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    config = EncoderConfig.model_validate(
        {"name": "late", "family": "dinov2", "checkpoint": "someone/some-model", "device": "cpu"}
    )
    with pytest.raises(ModelUnavailable, match="has no file like"):
        load_encoder(config)
