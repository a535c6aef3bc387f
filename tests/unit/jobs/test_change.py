"""The change of a configuration that an upgrade makes."""

import pytest
import yaml

from core.errors import ConfigError
from jobs.upgrade.change import arguments, change

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
