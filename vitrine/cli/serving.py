"""Command `serve`: the service in the foreground, on a Ray of its own."""

import os
import signal
import tempfile
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from vitrine.cli.configuration import ConfigFile


def serve(
    config: ConfigFile,
    host: Annotated[str | None, typer.Option(help="Listen here instead of where the file says.")] = None,
    port: Annotated[int | None, typer.Option(help="Listen on this port instead of the file's.")] = None,
) -> None:
    """Run the service in the foreground, on a Ray of its own, until interrupted."""
    import yaml

    from core.api_keys import NO_KEYS_NOTICE
    from core.tcp_ports import free_port
    from deployments.proxy.ray_environment import for_one_machine, node_kinds, ray_environment

    # What ends with Ray may still write a file while the folder goes.
    with tempfile.TemporaryDirectory(prefix="vitrine-", ignore_cleanup_errors=True) as scratch:
        os.environ.update(ray_environment(os.environ, Path(scratch)))
        # Ray reads the environment when it is imported, so it must not be imported earlier.
        from deployments.config_check.applications import has_admin_key
        from deployments.config_check.serve_file import read_serve_file

        if not has_admin_key(read_serve_file(config, host)):
            typer.echo(NO_KEYS_NOTICE, err=True)
        import ray
        from ray.serve.scripts import cli as ray_serve

        from jobs.runner.cluster import start_ray

        content = for_one_machine(yaml.safe_load(config.read_text()))
        try:
            # The dashboard takes the jobs of the API. On loopback and a free port: it runs whatever it gets.
            start_ray(
                namespace="serve",
                resources=node_kinds(content),
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                dashboard_port=free_port(),
            )
            # After Ray, which would die of the signal without ending what it started.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _interrupt)
            address = {"host": host, "port": port}
            content.setdefault("http_options", {}).update(
                {key: value for key, value in address.items() if value is not None}
            )
            changed = Path(scratch) / config.name
            changed.write_text(yaml.safe_dump(content))
            ray_serve.main(["run", str(changed)], standalone_mode=False)
        finally:
            # Before the folder goes that its processes use.
            ray.shutdown()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
