"""Requests that go on at a steady rate while something happens, and what became of each."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import numpy as np
from PIL import Image

from core.types import NewImage
from tests.support.image_files import b64, file

PAUSE_S = 0.3
"""Between two requests of a kind: what they go through starts on the same cores."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one request: its status (0: no answer), its body, and how long it took."""

    name: str
    status: int
    body: Any
    seconds: float

    @property
    def failed(self) -> bool:
        """True if the caller did not get what was asked for."""
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

    def __exit__(self, *_: object) -> None:
        """Let what is under way end."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def outcomes(self) -> Sequence[Outcome]:
        """Outcomes so far, in the order in which they came."""
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


PER_S = 5.0


def image(seed: int, side: int = 16) -> bytes:
    """A PNG of side x side pixels that is like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return file(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST))


def new_image(seed: int) -> NewImage:
    return NewImage(image(seed), "image/png", 16, 16)


@dataclass
class Traffic:
    """A context manager; what it saw is in its fields afterwards."""

    base_url: str
    model: str
    queries: Sequence[int]
    """Seeds of the images that are searched with."""
    prefix: str
    searches: list[dict[str, Any]] = field(default_factory=list)
    failed_searches: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """Writes that did something, by their method."""
    failed_writes: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def __enter__(self) -> Self:
        self._client = httpx.Client(base_url=self.base_url, timeout=60)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(16)
        self._ticker = threading.Thread(target=self._tick)
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._ticker.join()
        self._pool.shutdown()
        self._client.close()

    def _tick(self) -> None:
        steps: list[Callable[[int], None]] = [
            self._put,
            self._search,
            self._update,
            self._search,
            self._delete,
        ]
        steps += [self._put, self._search_ensemble, self._replace, self._search, self._search]
        for number in itertools.count():
            if self._stop.wait(1 / PER_S):
                return
            self._pool.submit(steps[number % len(steps)], number)

    def _put(self, number: int) -> None:
        self._write("PUT", self._name(number), {"images": [b64(image(10**6 + number))]})

    def _update(self, number: int) -> None:
        self._write("PUT", self._name(number - 2), {"attributes": {"price": number}})

    def _replace(self, number: int) -> None:
        self._write("PUT", self._name(number - 7), {"images": [b64(image(2 * 10**6 + number))]})

    def _delete(self, number: int) -> None:
        # Those whose image was replaced 17 steps ago; what is not there yet is not deleted.
        if number >= 24:
            self._write("DELETE", self._name(number - 24), None)

    def _search(self, number: int) -> None:
        self._ask(number, self.model)

    def _search_ensemble(self, number: int) -> None:
        self._ask(number, "ensemble")

    def _ask(self, number: int, model: str) -> None:
        seed = self.queries[number % len(self.queries)]
        part = {"type": "image", "image": b64(image(seed))}
        started = time.monotonic()
        try:
            answer = self._client.post("/v1/search", json={"query": [part], "model": model, "limit": 5})
        except httpx.HTTPError as error:
            self.failed_searches.append(repr(error))
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        if answer.status_code != 200:
            self.failed_searches.append(answer.text)
            return
        self.searches.append({"seed": seed, "asked": model, **answer.json()})

    def _write(self, method: str, product_id: str, body: Mapping[str, Any] | None) -> None:
        try:
            answer = self._client.request(method, f"/v1/products/{product_id}", json=body)
        except httpx.HTTPError as error:
            self.failed_writes.append(repr(error))
            return
        if answer.status_code in (200, 201, 204):
            self.done[method] += 1
        elif answer.status_code != 404:
            self.failed_writes.append(answer.text)

    def _name(self, number: int) -> str:
        return f"{self.prefix}-{number}"
