"""Command `serve`: the service in the foreground, on a Ray of its own."""

import os
import signal
import tempfile
from pathlib import Path
from types import FrameType

import typer
import yaml

from core.api_keys import NO_KEYS_NOTICE
from core.tcp_ports import free_port


def run(config: Path, host: str | None, port: int | None) -> None:
    """Check a Serve configuration, start Ray with what Vitrine needs, and run until interrupted.

    Raises:
        ConfigError: the configuration is wrong; nothing was started.
    """
    from deployments.proxy.ray_environment import node_kinds, ray_environment

    # What ends with Ray may still write a file while the folder goes.
    with tempfile.TemporaryDirectory(prefix="vitrine-", ignore_cleanup_errors=True) as scratch:
        os.environ.update(ray_environment(os.environ, Path(scratch)))
        # Ray reads the environment when it is imported, so it must not be imported earlier.
        from deployments.config_check.serve_file import has_admin_key, read_serve_file

        if not has_admin_key(read_serve_file(config, host)):
            typer.echo(NO_KEYS_NOTICE, err=True)
        import ray
        from ray.serve.scripts import cli as ray_serve

        try:
            _start_ray(node_kinds(yaml.safe_load(config.read_text())))
            # After Ray, which would die of the signal without ending what it started.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _interrupt)
            changed = _with_address(config, host, port, Path(scratch))
            ray_serve.main(["run", str(changed)], standalone_mode=False)
        finally:
            # Before the folder goes that its processes use.
            ray.shutdown()


def _start_ray(resources: dict[str, float]) -> None:
    from jobs.runner.cluster import start_ray

    # The dashboard takes the jobs of the API. On loopback and a free port: it runs whatever it gets.
    start_ray(
        namespace="serve",
        resources=resources,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=free_port(),
    )


def _with_address(config: Path, host: str | None, port: int | None, scratch: Path) -> Path:
    content = yaml.safe_load(config.read_text())
    options = content.setdefault("http_options", {})
    options |= {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    changed = scratch / config.name
    changed.write_text(yaml.safe_dump(content))
    return changed


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
