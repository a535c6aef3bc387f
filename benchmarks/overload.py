"""Five times more searches than the service can answer, and what becomes of them."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import psutil

from benchmarks.arrivals import Offered, arrivals, callers
from demo.service import DemoService

CALLERS = (4, 8, 16)
CAPACITY_S = 8.0
UNLOADED_S = 20.0
WARM_UP_S = 3.0
SETTLE_S = 10.0
TIMES_CAPACITY = 5


@dataclass(frozen=True, slots=True)
class Overload:
    """Result of the overload; times in ms, memory in MiB."""

    rates_per_s: dict[int, float]
    unloaded_p50_ms: float
    unloaded_p99_ms: float
    accepted_p50_ms: float
    accepted_p99_ms: float
    accepted_per_s: float
    offered_per_s: float
    rejected_p99_ms: float
    memory_mib: tuple[float, float]
    statuses: Counter[int]
    other_errors: int

    @property
    def p99_ratio(self) -> float:
        """Ratio of the p99 of accepted searches to that of a single caller."""
        return self.accepted_p99_ms / self.unloaded_p99_ms

    @property
    def memory_ratio(self) -> float:
        """Memory after against before."""
        return self.memory_mib[1] / self.memory_mib[0]


def overload(service: DemoService, port: int, seconds: float, options: dict[str, Any]) -> Overload:
    """Measure one caller alone, the capacity, and searches that arrive at five times that rate.

    Raises:
        RuntimeError: a process of the service ended.
    """
    replicas = _replicas(service)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as client:

        def offer(load: Callable[..., Offered], *arguments: Any) -> Offered:
            return client.submit(load, port, options, *arguments).result()

        alone = _warm(offer(callers, 1, WARM_UP_S + UNLOADED_S))
        rates = {count: _rate(offer(callers, count, WARM_UP_S + CAPACITY_S)) for count in CALLERS}
        time.sleep(SETTLE_S)
        before = _memory_mib(service)
        much = offer(arrivals, TIMES_CAPACITY * max(rates.values()), seconds)
        time.sleep(SETTLE_S)
    if _replicas(service) != replicas:
        raise RuntimeError(f"a replica ended; see {service.log_file}")
    return Overload(
        rates_per_s=rates,
        unloaded_p50_ms=float(np.median(alone)),
        unloaded_p99_ms=_p99(alone),
        accepted_p50_ms=float(np.median(much.times_ms(200))),
        accepted_p99_ms=_p99(much.times_ms(200)),
        accepted_per_s=len(much.times_ms(200)) / seconds,
        offered_per_s=(len(much.answers) + much.unsent) / seconds,
        rejected_p99_ms=_p99(much.times_ms(503)),
        memory_mib=(before, _memory_mib(service)),
        statuses=Counter(answer.status for answer in much.answers),
        other_errors=_other_errors(much),
    )


def _other_errors(offered: Offered) -> int:
    """Arrivals that got neither results nor a refusal in the form of the API."""
    wrong = sum(1 for each in offered.answers if each.status not in (200, 503) or not each.in_form)
    return wrong + offered.unsent


def _warm(offered: Offered) -> list[float]:
    begun = offered.answers[0].at + WARM_UP_S
    return [answer.ms for answer in offered.answers if answer.status == 200 and answer.at > begun]


def _rate(offered: Offered) -> float:
    return len(_warm(offered)) / CAPACITY_S


def _p99(times_ms: Sequence[float]) -> float:
    return float(np.quantile(times_ms, 0.99))


def _replicas(service: DemoService) -> set[int]:
    return {process.pid for process in service.processes("ServeReplica:")}


def _memory_mib(service: DemoService) -> float:
    """Sum the memory of the service's processes; shared memory is divided among them (PSS)."""
    return sum(map(_pss, service.processes(""))) / 2**20


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
