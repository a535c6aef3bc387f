"""Command `serve`: what it hands to Ray Serve."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitrine.cli.serving import serve

ROOT = Path(__file__).parents[3]


def test_production_on_one_machine_waits_for_no_second_node(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[Any] = []
    monkeypatch.setenv("VITRINE_DATABASE_URL", "postgresql://vitrine@db/vitrine")
    monkeypatch.setenv("VITRINE_BLOBS_URL", "s3://images")
    monkeypatch.setenv("VITRINE_MILVUS_URI", "http://milvus:19530")
    monkeypatch.setenv("VITRINE_ADMIN_KEY_SHA256", "0" * 64)
    # The command changes it for the processes that Ray starts.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("jobs.runner.cluster.start_ray", lambda **_: None)
    monkeypatch.setattr(
        "ray.serve.scripts.cli.main",
        lambda arguments, **_: handed.append(yaml.safe_load(Path(arguments[1]).read_text())),
    )
    serve(ROOT / "serve_config.yaml")
    (content,) = handed
    (gateway,) = (each for each in content["applications"] if each["name"] == "gateway")
    assert gateway["deployments"][0]["autoscaling_config"]["min_replicas"] == 3
    assert "max_replicas_per_node" not in gateway["deployments"][0]
