"""The service as a child process, and its configurations; on exit no process is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self
from urllib.parse import quote

import httpx
import psutil
import yaml

STOP_TIMEOUT_S = 40.0
CONFIG = Path(__file__).with_name("serve_config.demo.yaml")
WEIGHTS = Path(__file__).with_name("weights")


def write_configuration(file: Path, encoder: Mapping[str, Any], home: Path) -> None:
    """Write the demo's Serve configuration with this encoder alone, its data in `home`."""
    content = yaml.safe_load(CONFIG.read_text())
    name, applications = encoder["name"], content["applications"]
    kept = {each["name"]: each for each in applications if not each["import_path"].endswith(":build_encoder")}
    example = next(each for each in applications if each["import_path"].endswith(":build_encoder"))
    example["deployments"][0]["autoscaling_config"] = {"min_replicas": 1, "max_replicas": 1}
    kept[name] = example | {"name": name, "args": dict(encoder)}
    # A short path: the length of a socket's address is limited.
    address = f"unix:{file.with_name('milvus.sock')}"
    milvus = {"uri": address}
    # Quoted: in a URL, `?` would end the path.
    database_url = f"sqlite:///{quote(str(home / 'catalog.sqlite'))}"
    catalog = {"database_url": database_url, "blobs_url": str(home / "blobs")}
    kept["milvus-lite"]["args"] = {"folder": str(home / "milvus"), "address": address}
    kept["ensemble"]["args"]["milvus"] = milvus
    kept["ensemble"]["deployments"][0]["user_config"]["weights"] = {name: 1.0}
    for each in ("repair", "gateway"):
        kept[each]["args"] |= {"catalog": catalog, "milvus": milvus}
        kept[each]["deployments"][0]["user_config"] = {"models": [name]}
    # Small steps, so that the progress is seen, and what was imported is indexed soon: nobody else writes.
    kept["gateway"]["args"]["jobs"] = {"imports": {"batch_products": 16}}
    # The page is of use before everything is indexed.
    kept["gateway"]["args"]["ready_coverage"] = 0.0
    kept["repair"]["args"] |= {"interval_s": 1.0, "grace_s": 5.0, "batch_size": 32}
    content["applications"] = list(kept.values())
    file.write_text(yaml.safe_dump(content, sort_keys=False))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def on_interrupts(do: Callable[[int, FrameType | None], None] | signal.Handlers = _interrupt) -> None:
    """Take SIGTERM and the end of the terminal for Ctrl-C: each would end this process and not its service.

    A process that a script starts in the background inherits SIGINT as ignored, so it is set there too. SIGHUP stays
    ignored under `nohup`.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, do)


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
