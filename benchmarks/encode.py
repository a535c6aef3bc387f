"""`python -m benchmarks.encode`: how fast and how small the encoders are, against the least possible.

Prints a table, and as its last line one JSON object with the ratios.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bare import median
from benchmarks.batching import compare_batching
from benchmarks.eight_bit import EightBit, eight_bit
from benchmarks.preprocess import Preprocessed, preprocess_over_full
from benchmarks.served import Served, served_over_bare

Row = tuple[str, str, str, str]

console = Console(width=110)


def main() -> None:
    """Measure what was asked for, all bars by default."""
    options = _options()
    # The service is a child, which only an orderly end takes along.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit("ended by SIGTERM"))
    with tempfile.TemporaryDirectory(prefix="vitrine-benchmark-") as folder:
        if options.batching:
            console.print(compare_batching(Path(folder)))
            return
        rows, figures = _bars(Path(folder), options.rounds)
    table = Table("bar", "wanted", "measured", "how", title=f"encoders ({_machine()})")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    print(json.dumps(figures))


def _bars(scratch: Path, rounds: int) -> tuple[list[Row], dict[str, float]]:
    served, served_bf16 = (
        served_over_bare(scratch / precision, rounds, precision) for precision in ("fp32", "bf16")
    )
    preprocessed = preprocess_over_full(rounds=15)
    small = eight_bit(scratch)
    figures = {
        "served_over_bare": round(served.ratio, 4),
        "served_images_per_s": round(median(served.served), 2),
        "bare_images_per_s": round(median(served.bare), 2),
        "served_over_bare_bf16": round(served_bf16.ratio, 4),
        "preprocess_over_full": round(preprocessed.ratio, 4),
        "preprocess_cosine": round(preprocessed.cosine, 6),
        "int8_cosine_min": round(small.cosine_min, 6),
        "int8_memory_ratio": round(small.int8_mib / small.fp32_mib, 4),
    }
    rows = [
        ("served_over_bare", "≥ 0.85", *_served(served)),
        ("served_over_bare_bf16", "", *_served(served_bf16)),
        _preprocess_row(preprocessed),
        *_eight_bit_rows(small),
    ]
    return rows, figures


def _served(found: Served) -> tuple[str, str]:
    bare = " ".join(f"{value:.1f}" for value in found.bare)
    served = " ".join(f"{value:.1f}" for value in found.served)
    loops = " or ".join(f"{batch} on {threads} threads" for threads, batch in found.batches.items())
    how = (
        f"ViT-B-32 {found.precision}, HTTP in and out; images/s served {served}; forward pass alone, the better "
        f"of batch {loops}: {bare}"
    )
    return f"{found.ratio:.3f}", how


def _preprocess_row(found: Preprocessed) -> Row:
    how = f"{found.ours_ms:.1f} ms against {found.full_ms:.1f} ms; cosine {found.cosine:.5f}"
    return "preprocess_over_full", "≤ 0.40", f"{found.ratio:.3f}", how


def _eight_bit_rows(found: EightBit) -> list[Row]:
    how = f"{found.int8_mib:.0f} MiB against {found.fp32_mib:.0f} MiB"
    return [
        ("int8_cosine_min", "≥ 0.99", f"{found.cosine_min:.5f}", "BLIP-2 at ViT-g's width, random weights"),
        ("int8_memory_ratio", "≤ 0.36", f"{found.int8_mib / found.fp32_mib:.3f}", how),
    ]


def _machine() -> str:
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, load {load}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of bare and served (default: 9)")
    parser.add_argument("--batching", action="store_true", help="compare batch sizes and waits instead")
    return parser.parse_args()


if __name__ == "__main__":
    main()
