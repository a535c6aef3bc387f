"""`vitrine try` as a user runs it: until it answers, and to its end by Ctrl-C."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from core.tcp_ports import free_port
from tests.support.children import Child, shown_on_failure
from tests.support.waiting import wait_until

WITHIN_S = 600


class TryCommand(Child):
    """The command, with the address of its service."""

    def __init__(self, images: Path, data: Path, *options: Any) -> None:
        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}"
        command = [
            sys.executable,
            "-m",
            "vitrine.cli.main",
            "try",
            images,
            "--data",
            data,
            "--port",
            port,
            *options,
        ]
        # So wide that no message is wrapped.
        super().__init__("try", [str(each) for each in command], env={**os.environ, "COLUMNS": "1000"})

    def wait_until(self, words: str) -> None:
        """Return when it has printed these words."""
        wait_until(
            lambda: self.poll() is not None or words in self.output(), WITHIN_S, self.output, pause_s=0.2
        )
        assert words in self.output(), self.output()

    def interrupt(self) -> None:
        """Press Ctrl-C, and check that nothing is left of it."""
        started = psutil.Process(self.pid).children(recursive=True)
        self.send_signal(signal.SIGINT)
        self.wait(timeout=120)
        assert [process for process in started if process.is_running()] == []

    def __exit__(self, *error: Any) -> None:
        """Press Ctrl-C where nobody has."""
        if self.poll() is None:
            self.interrupt()
        super().__exit__(*error)


@contextmanager
def trying(images: Path, data: Path, *options: Any) -> Iterator[TryCommand]:
    """Run the command until it answers; end it with Ctrl-C."""
    with TryCommand(images, data, *options) as command, shown_on_failure(data / "service.log"):
        command.wait_until("Ctrl-C ends it")
        yield command
