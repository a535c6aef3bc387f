"""The production configuration with tiny weights: what is different from serve_config.yaml is listed here."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from demo.service import WEIGHTS

PRODUCTION = Path(__file__).parents[1] / "serve_config.yaml"

CHECKPOINTS: dict[str, dict[str, Any]] = {
    # Weights that fit, and a thread of a CPU, for there is no GPU behind the ones that Ray counts.
    name: {"checkpoint": str(WEIGHTS / name), "device": "cpu", "threads": 1}
    for name in ("openclip", "dinov2", "blip2")
}
LOOKED_AT: dict[str, float] = {"look_back_period_s": 5, "metrics_interval_s": 0.5}
"""What Serve goes by when it scales: by default the last 30 s, told each 10 s."""
EAGER: dict[str, float] = {
    "max_replicas": 2,
    "target_ongoing_requests": 0.1,
    "downscale_delay_s": 8,
    **LOOKED_AT,
}
SCALING: dict[str, dict[str, Any]] = {
    # Two replicas at most, for they share two cores; as good as any load is enough for the second one.
    "openclip": EAGER,
    "dinov2": EAGER,
    # As docs/operations.md says for a model that may sleep.
    "blip2": {"min_replicas": 0, "max_replicas": 1, "downscale_to_zero_delay_s": 8, **LOOKED_AT},
}
"""What the tests of scaling change while the service runs, as an operator would, for there is no time and no load
for production's own numbers."""


def production_config(port: int) -> dict[str, Any]:
    """Read serve_config.yaml and change what CHECKPOINTS lists, and the address."""
    config: dict[str, Any] = yaml.safe_load(PRODUCTION.read_text())
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    for name, changes in CHECKPOINTS.items():
        args = application(config, name)["args"]
        args |= changes
        args.pop("pretrained", None)
    return config


def scaling_at_once(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with encoders that scale within seconds."""
    changed = deepcopy(config)
    for name, changes in SCALING.items():
        application(changed, name)["deployments"][0]["autoscaling_config"] |= changes
    return changed


def application(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Find an application of a configuration by its name."""
    found: dict[str, Any] = next(each for each in config["applications"] if each["name"] == name)
    return found
