"""Running the service in the foreground, on a Ray of its own."""

import os
import signal
import tempfile
from pathlib import Path
from types import FrameType

import yaml

from cli.environment import ray_environment


def run(config: Path, host: str | None, port: int | None) -> None:
    """Check a Serve configuration, start Ray with what Vitrine needs, and run until interrupted.

    Raises:
        ConfigError: the configuration is wrong; nothing was started.
    """
    with tempfile.TemporaryDirectory(prefix="vitrine-") as scratch:
        os.environ.update(ray_environment(os.environ, Path(scratch)))
        # Ray reads the environment when it is imported, so it must not be imported earlier.
        from deployments.serve_file import read_serve_file

        read_serve_file(config)
        import ray
        from ray.serve.scripts import cli as ray_serve

        ray.init(address="local", namespace="serve", include_dashboard=False)
        # After Ray, which would die of the signal without ending what it started.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        changed = _with_address(config, host, port, Path(scratch))
        ray_serve.main(["run", str(changed)], standalone_mode=False)


def _with_address(config: Path, host: str | None, port: int | None, scratch: Path) -> Path:
    content = yaml.safe_load(config.read_text())
    options = content.setdefault("http_options", {})
    options |= {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    changed = scratch / config.name
    changed.write_text(yaml.safe_dump(content))
    return changed


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
