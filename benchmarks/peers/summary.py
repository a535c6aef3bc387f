"""From runs to figures: medians over the turns, and the ratios that have a bar."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.peers.measure import Window

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By server and mode."""
_DIGITS = {"cosine": 6, "served_over_bare": 3, "pss_gib": 3}


@dataclass(frozen=True, slots=True)
class Run:
    """One server in one turn: a window for each mode, the PSS of its processes in MiB, and the bare model."""

    server: str
    windows: Mapping[str, Window]
    processes: Sequence[tuple[str, float]]
    bare_images_per_s: float

    @property
    def pss_gib(self) -> float:
        """Return the memory of all processes, shared memory divided among them."""
        return sum(used for _, used in self.processes) / 1024


def figures(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the median of each figure over the turns, by server and mode."""
    servers = list(dict.fromkeys(run.server for run in runs))
    return {server: _modes([run for run in runs if run.server == server]) for server in servers}


def _modes(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    return {mode: _medians([_row(run, mode) for run in runs]) for mode in runs[0].windows}


def _row(run: Run, mode: str) -> dict[str, float]:
    found = run.windows[mode]
    return {
        **asdict(found),
        "served_over_bare": found.images_per_s / run.bare_images_per_s,
        "bare_images_per_s": run.bare_images_per_s,
        "pss_gib": run.pss_gib,
    }


def _medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: round(median(row[key] for row in rows), _DIGITS.get(key, 2)) for key in rows[0]}


def ratios(towers: Mapping[str, Figures], ours: str = "vitrine") -> dict[str, float]:
    """Return what has a bar, by a key `{tower}_{mode}_{figure}`: images/s over each peer's and the better one's."""
    found: dict[str, float] = {}
    for tower, servers in towers.items():
        for mode, own in servers[ours].items():
            key = f"{tower}_{mode}"
            found[f"{key}_cpu_ms"] = own["cpu_ms"]
            found[f"{key}_p50_ms"] = own["p50_ms"]
            found[f"{key}_served_over_bare"] = own["served_over_bare"]
            rates = {peer: each[mode]["images_per_s"] for peer, each in servers.items() if peer != ours}
            for peer, rate in rates.items():
                found[f"{key}_over_{peer}"] = round(own["images_per_s"] / rate, 3)
            if rates:
                found[f"{key}_over_better_peer"] = round(own["images_per_s"] / max(rates.values()), 3)
        found[f"{tower}_pss_gib"] = max(each["pss_gib"] for each in servers[ours].values())
    return found
