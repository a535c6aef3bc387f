"""The service as a child process; on exit no process is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
import psutil

STOP_TIMEOUT_S = 40.0
CONFIG = Path(__file__).with_name("serve_config.demo.yaml")
WEIGHTS = Path(__file__).with_name("weights")


class DemoService:
    """`vitrine serve` on the demo's configuration, its data in `home`; a context manager.

    The process also holds the descriptors `kept_open`, and with them their locks, as long as it runs.
    """

    def __init__(
        self,
        home: Path,
        port: int,
        config: Path = CONFIG,
        quiet: bool = True,
        kept_open: Sequence[int] = (),
    ) -> None:
        self.base_url = f"http://127.0.0.1:{port}"
        self._home = home.resolve()
        self._command = [sys.executable, "-m", "vitrine.cli.main", "serve", str(config), "--port", str(port)]
        self._quiet = quiet
        self._kept_open = tuple(kept_open)
        self._started: list[psutil.Process] = []
        self._process: psutil.Popen | None = None

    @property
    def log_file(self) -> Path:
        """Log file of the service."""
        return self._home / "service.log"

    @property
    def pid(self) -> int:
        """Process id of `vitrine serve`, the ancestor of all others."""
        assert self._process is not None
        return int(self._process.pid)

    def __enter__(self) -> Self:
        """Start the service; call `wait_until_ready` before using it."""
        self._home.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = psutil.Popen(
                self._command,
                env=self._environment(os.environ),
                stdout=log if self._quiet else None,
                stderr=subprocess.STDOUT if self._quiet else None,
                # Ctrl-C reaches the parent only, which stops the child in order.
                start_new_session=True,
                pass_fds=self._kept_open,
            )
        return self

    def __exit__(self, *_error: object) -> None:
        """End the service and every process that it started."""
        assert self._process is not None
        # The processes of a service that died have lost their parent, so those seen earlier are added.
        family = list({*self._started, *self._family()})
        with suppress(psutil.NoSuchProcess):
            self._process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs([self._process], timeout=STOP_TIMEOUT_S)
        for process in [*alive, *family]:
            _kill(process)
        psutil.wait_procs(family, timeout=10)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return once every model has answered a real image.

        Raises:
            RuntimeError: the service ended, or was not ready in time; the log says more.
        """
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        problem: str | None = "no answer yet"
        with httpx.Client(base_url=self.base_url, timeout=10) as client:
            while time.monotonic() < deadline:
                if not self.is_running():
                    raise RuntimeError(f"the service ended; see {self.log_file}")
                problem = _problem(client)
                if problem is None:
                    self._started = self._family()
                    return
                time.sleep(0.5)
        raise RuntimeError(f"not ready after {timeout_s:g} s ({problem}); see {self.log_file}")

    def is_running(self) -> bool:
        """Return whether the service is still running."""
        assert self._process is not None
        return self._process.poll() is None

    def wait(self) -> None:
        """Return when the service has ended by itself."""
        assert self._process is not None
        self._process.wait()

    def processes(self, title: str) -> list[psutil.Process]:
        """Find processes of this service by a part of their title."""
        return [process for process in self._family() if title in " ".join(_title(process))]

    def _family(self) -> list[psutil.Process]:
        assert self._process is not None
        try:
            return list(self._process.children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def _environment(self, current: Mapping[str, str]) -> dict[str, str]:
        return {**current, "VITRINE_HOME": str(self._home), "VITRINE_WEIGHTS": str(WEIGHTS)}


def _problem(client: httpx.Client) -> str | None:
    try:
        answer = client.get("/health/ready")
    except httpx.HTTPError as error:
        return type(error).__name__
    return None if answer.status_code == 200 else answer.text


def _title(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()
