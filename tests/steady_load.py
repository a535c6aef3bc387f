"""Requests that go on while something happens, each a repeatable one, and what became of every one."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

PAUSE_S = 0.3
"""Between two requests of a kind: what they go through starts on the same cores."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request came to: its status (0: no answer), its body, and how long it took."""

    name: str
    status: int
    body: Any
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether the caller did not get what was asked for."""
        return not 200 <= self.status < 300


class SteadyLoad:
    """Sends each kind of request over and over, each from threads of its own; a context manager.

    Nothing is sent a second time: what fails, fails.
    """

    def __init__(
        self, client: Callable[[], httpx.Client], requests: Mapping[str, Callable[[int], httpx.Request]]
    ) -> None:
        """`requests` make the n-th request of their kind; `client` opens a connection for each thread."""
        self._client = client
        self._stop = threading.Event()
        self._outcomes: list[Outcome] = []
        self._threads = [threading.Thread(target=self._run, args=each) for each in requests.items()]

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let what is under way end."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def outcomes(self) -> Sequence[Outcome]:
        """What has been answered so far, in the order in which it was."""
        return list(self._outcomes)

    def failures(self) -> list[Outcome]:
        """Those that the caller could not use."""
        return [outcome for outcome in self._outcomes if outcome.failed]

    def counts(self) -> dict[str, int]:
        """Count the good answers by kind."""
        good = [outcome.name for outcome in self._outcomes if not outcome.failed]
        return {name: good.count(name) for name in sorted(set(good))}

    def _run(self, name: str, request: Callable[[int], httpx.Request]) -> None:
        number = 0
        with self._client() as client:
            while not self._stop.is_set():
                self._outcomes.append(_sent(client, name, request(number)))
                number += 1
                self._stop.wait(PAUSE_S)


def _sent(client: httpx.Client, name: str, request: httpx.Request) -> Outcome:
    started = time.monotonic()
    try:
        answer = client.send(request)
    except httpx.TransportError as error:
        return Outcome(name, 0, repr(error), time.monotonic() - started)
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    return Outcome(
        name, answer.status_code, answer.json() if is_json else answer.text, time.monotonic() - started
    )
